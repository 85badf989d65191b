"""The query parameters of the instances' operations."""

from __future__ import annotations

import re

from django.http import QueryDict

from llamactl.core.errors import InvalidParameter

MAX_LINES = 10**18 - 1
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
# As JSON writes numbers, which is what clients made from the schema send.
_SECONDS = re.compile(r"[0-9]{1,10}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
MAX_WAIT_SECONDS = 10**9
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def lines_of(query: QueryDict) -> int | None:
    """``lines``: how many of the last lines of a log; None for all (as any number below 1 is).

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
    """``wait``: how many seconds to wait for a start; None for not at all.

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
    """A parameter that is ``true`` or ``false`` (or 1 or 0); false unless given.

    One without a value is refused: whoever writes ``?dry_run`` means true, and whoever sends an
    empty field of a form does not.

    Raises InvalidParameter.
    """
    text = query.get(name, "false").lower()
    if text not in _BOOLEANS:
        raise InvalidParameter(f"Invalid {name} parameter: {text[:80]!r} is neither true nor false")
    return _BOOLEANS[text]
