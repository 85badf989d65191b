"""Sanitizing of text from backends and clients for display.

The templates escape HTML. This module handles the rest: terminal codes, control characters that
hide text, characters that reverse the reading direction, and lone surrogates, which UTF-8 can't
encode.
"""

from __future__ import annotations

import json
import re

MAX_LINE_LENGTH = 2_000
"""Characters shown of a line; a backend may write megabytes without a line break."""

_TERMINAL_CODE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor: ESC [ … letter
    r"|\x1b\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)"  # titles, links: ESC ] … BEL
    r"|\x1b[ -/]*[0-Z\\^-~]"  # two letters
)
_LINE_BREAK = re.compile(r"\r\n?|\n")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def sanitize_text(text: str) -> str:
    """Remove terminal codes, and escape other invisible characters as ``\\u202e``.

    A lone carriage return (of a progress bar) becomes a line break, so that no text is overwritten.
    """
    lines = _LINE_BREAK.split(_TERMINAL_CODE.sub("", text))
    return "\n".join(_shortened(_INVISIBLE.sub(_as_escape, line)) for line in lines)


def fits_input_field(text: str) -> bool:
    """Whether a one-line input field shows ``text`` and submits it unchanged."""
    return (
        text == text.strip()
        and "\n" not in text
        and "\t" not in text
        and not (_INVISIBLE.search(text))
    )


def sanitize_json(value: object) -> str:
    """Write ``value`` as indented JSON with invisible characters escaped."""
    return _INVISIBLE.sub(_as_escape, json.dumps(value, indent=2, ensure_ascii=False))


def _as_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _shortened(line: str) -> str:
    if len(line) <= MAX_LINE_LENGTH:
        return line
    return f"{line[:MAX_LINE_LENGTH]}… ({len(line) - MAX_LINE_LENGTH} more characters)"
