"""Values as words of a command line, and the characters that a word may hold.

Programs are started without a shell, so quotes, ``;`` and ``$`` are characters like others.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from decimal import Decimal

from llamactl.core.errors import LlamactlError

MAX_VALUE_BYTES = 128_000
"""Linux takes at most 131,071 bytes in one argument, including a flag's name before a ``=``."""

LARGEST_EXACT = 2**53
"""Up to this, every whole number is the same as int and as float."""

WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)

_SHOWN = 80
_TYPOGRAPHIC = re.compile("[\u00a0\u00ab\u00bb\u2018-\u201f\u2032\u2033\u200b\ufeff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_IN_PROSE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


class InvalidBackendOptions(LlamactlError):
    """A backend option of the wrong type, or with a value that can't go on a command line."""

    code = "invalid_request"
    status = 400


def shown(value: object) -> str:
    """Describe a value for an error message, in at most 80 characters."""
    described = repr(value)
    return described if len(described) <= _SHOWN else described[: _SHOWN - 1] + "…"


def compact(value: object) -> str:
    """Write JSON without blanks. Raises ValueError or RecursionError for a value JSON has not."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def as_text(value: object) -> str | None:
    """Write a value as one word of a command line; ``None`` for a value without such a form.

    Numbers are written without an exponent (``0.00001``, ``1000000``), objects and lists as JSON.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        digits = format(Decimal(repr(value)), "f")
        return digits.removesuffix(".0")
    if isinstance(value, int):
        return str(value)
    try:
        return compact(value)
    except (TypeError, ValueError, RecursionError):
        return None


def json_problem(text: str) -> str:
    """Say why ``text`` is no JSON; empty if it is JSON."""
    try:
        json.loads(text)
    except RecursionError:
        return "it is nested too deeply"
    except ValueError as error:
        if typographic := _TYPOGRAPHIC.search(text):
            character = typographic[0]
            name = unicodedata.name(character).lower()
            return f"{character} (U+{ord(character):04X}, {name}) is no character of JSON"
        if _is_json(text.replace('\\"', '"')):
            return "leave out the backslashes before the quotes"
        if _is_json(text.replace("'", '"')):
            return "JSON has double quotes"
        return str(error)
    return ""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def read_number(word: str) -> object:
    """Read a number, as ``as_text`` writes it; a word that is no number stays a word."""
    if WHOLE_NUMBER.fullmatch(word) and abs(int(word)) <= LARGEST_EXACT:
        return int(word)
    if _NUMBER.fullmatch(word):
        return float(word)
    return word


def is_flag_like(word: str) -> bool:
    """Tell whether argparse takes a word for a flag: a dash first, and no negative number."""
    return word.startswith("-") and word != "-" and not _NUMBER.fullmatch(word)


def check_characters(text: str, label: str, *, prose: bool = False, secret: bool = False) -> None:
    """Refuse characters that an argument of a program can't, or should not, hold.

    NUL ends an argument, and control characters in a path or a name are mistakes. Line breaks and
    tabs are allowed in ``prose``. Raises InvalidBackendOptions.
    """
    got = "(hidden)" if secret else shown(text)
    if (_CONTROL_IN_PROSE if prose else _CONTROL).search(text):
        spared = " other than line breaks and tabs" if prose else ""
        raise InvalidBackendOptions(
            f"{label} must not contain control characters{spared}, got {got}"
        )
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidBackendOptions(
            f"{label} must be valid Unicode; got half of a surrogate pair in {got}"
        ) from error
    if size > MAX_VALUE_BYTES:
        raise InvalidBackendOptions(
            f"{label} must be at most {MAX_VALUE_BYTES} bytes long, got {size}: {got}"
        )
