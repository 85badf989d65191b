"""How text that a backend or a client wrote is shown to people: all of it, and harmless.

HTML is escaped by the templates. This is about what they let through: terminal codes, control
characters that hide text, letters that turn the reading direction around, and lone surrogates,
which can't be sent as UTF-8 at all.
"""

from __future__ import annotations

import json
import re

MAX_LINE_LENGTH = 2_000
"""Characters of a line that are shown; a backend may well write megabytes without a break."""

_TERMINAL_CODE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor: ESC [ … letter
    r"|\x1b\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)"  # titles, links: ESC ] … BEL
    r"|\x1b[ -/]*[0-Z\\^-~]"  # two letters
)
_LINE_BREAK = re.compile(r"\r\n?|\n")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def readable(text: str) -> str:
    """``text`` without terminal codes, other invisible characters written as ``\\u202e``.

    A lone carriage return (progress bars) becomes a line break, so that nothing is overwritten.
    """
    lines = _LINE_BREAK.split(_TERMINAL_CODE.sub("", text))
    return "\n".join(_shortened(_INVISIBLE.sub(_as_escape, line)) for line in lines)


def is_plain(text: str) -> bool:
    """Whether a one-line input field shows ``text`` and sends back the same."""
    return (
        text == text.strip()
        and "\n" not in text
        and "\t" not in text
        and not (_INVISIBLE.search(text))
    )


def readable_json(value: object) -> str:
    """``value`` as indented JSON that reads back as the same, invisible characters escaped."""
    return _INVISIBLE.sub(_as_escape, json.dumps(value, indent=2, ensure_ascii=False))


def _as_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _shortened(line: str) -> str:
    if len(line) <= MAX_LINE_LENGTH:
        return line
    return f"{line[:MAX_LINE_LENGTH]}… ({len(line) - MAX_LINE_LENGTH} more characters)"
