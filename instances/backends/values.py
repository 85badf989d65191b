"""What may a word of a command line say, and how is a value written as one?

No shell is in between, so quotes, ``;`` and ``$`` are characters like any other.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal

from llamactl.core.errors import LlamactlError

MAX_VALUE_BYTES = 128_000
"""Linux takes at most 131,071 bytes in one argument, the flag's name before a ``=`` included."""

LARGEST_EXACT = 2**53
"""The whole numbers up to here are the same as int and as float."""

WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)

_SHOWN = 80
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_IN_PROSE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


class InvalidBackendOptions(LlamactlError):
    """An option of a backend has the wrong type, or a value that can't go on a command line."""

    code = "invalid_request"
    status = 400


def shown(value: object) -> str:
    """A value for an error message, at most 80 characters of it."""
    described = repr(value)
    return described if len(described) <= _SHOWN else described[: _SHOWN - 1] + "…"


def compact(value: object) -> str:
    """JSON without blanks. Raises ValueError or RecursionError for what JSON can't say."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def as_text(value: object) -> str | None:
    """A value as one word of a command line; ``None`` for what has no such form.

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


def read_number(word: str) -> object:
    """The inverse of ``as_text`` for numbers; a word that is no number stays a word."""
    if WHOLE_NUMBER.fullmatch(word) and abs(int(word)) <= LARGEST_EXACT:
        return int(word)
    if _NUMBER.fullmatch(word):
        return float(word)
    return word


def is_flag_like(word: str) -> bool:
    """Whether argparse takes a word for a flag: it begins with a dash and is no negative number."""
    return word.startswith("-") and word != "-" and not _NUMBER.fullmatch(word)


def check_characters(text: str, label: str, *, prose: bool = False, secret: bool = False) -> None:
    """Refuse what can't be, or shouldn't be, in an argument of a program.

    NUL ends an argument, and control characters in a path or a name are mistakes; line breaks and
    tabs are fine in ``prose``. Raises InvalidBackendOptions.
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
