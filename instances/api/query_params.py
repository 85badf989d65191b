"""Query parameters of the operations on instances."""

from __future__ import annotations

import re

from django.http import QueryDict

from llamactl.core.errors import InvalidParameter

MAX_LINES = 10**18 - 1
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
# JSON's form of numbers: generated clients send that form.
_SECONDS = re.compile(r"[0-9]{1,10}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
MAX_WAIT_SECONDS = 10**9
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def lines_of(query: QueryDict) -> int | None:
    """Return ``lines``, the number of last lines of a log; None for all (any number below 1).

    Raises InvalidParameter.
    """
    text = query.get("lines", "")
    if not text:
        return None
    if not _WHOLE_NUMBER.fullmatch(text):
        raise InvalidParameter(f"Invalid lines parameter: {text[:80]!r} is no whole number")
    lines = int(text)
    return lines if lines > 0 else None


def wait_of(query: QueryDict) -> float | None:
    """Return ``wait``, the seconds to wait for a start; None for no wait.

    Raises InvalidParameter.
    """
    text = query.get("wait")
    if text is None:
        return None
    if not _SECONDS.fullmatch(text) or float(text) > MAX_WAIT_SECONDS:
        raise InvalidParameter(
            f"Invalid wait parameter: {text[:80]!r} is no number of seconds from 0 to"
            f" {MAX_WAIT_SECONDS}"
        )
    return float(text)


def flag_of(query: QueryDict, name: str) -> bool:
    """Return a parameter that is ``true`` or ``false`` (or 1 or 0); false if missing.

    An empty value is refused as ambiguous: ``?dry_run`` means true, an empty form field false.

    Raises InvalidParameter.
    """
    text = query.get(name, "false").lower()
    if text not in _BOOLEANS:
        raise InvalidParameter(f"Invalid {name} parameter: {text[:80]!r} is neither true nor false")
    return _BOOLEANS[text]
