"""Check of a JSON document for values that would fail later.

NUL characters (PostgreSQL refuses them), lone surrogates (UTF-8 can't encode them, so that no
document with one can be sent) and deep nesting. The error names the place of the value.
"""

from __future__ import annotations

import re

MAX_DEPTH = 32
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def check_values(document: object) -> None:
    """Check the depth and every string, without recursion. Raises ValueError."""
    pending: list[tuple[object, int, str]] = [(document, 1, "")]
    while pending:
        value, depth, place = pending.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"it must not be nested more than {MAX_DEPTH} deep")
        if isinstance(value, str):
            _check_text(value, place)
        elif isinstance(value, dict):
            for name, item in value.items():
                _check_text(name, f"a name in {place or 'the object'}")
                pending.append((item, depth + 1, f"{place}.{name[:40]}" if place else name[:40]))
        elif isinstance(value, list):
            pending.extend((item, depth + 1, place) for item in value)


def _check_text(text: str, place: str) -> None:
    found = _UNSTORABLE.search(text)
    if found is not None:
        what = "a NUL character" if found.group() == "\x00" else "half of a surrogate pair"
        raise ValueError(f"{place[:200]} must not contain {what}")
