"""The line of a backend's log that tells most about a failed start.

Most clients show an error's ``message`` alone, and their user has no log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from instances.backends.exit_reasons import failure_signs
from llamactl.core.sanitize import sanitize_text
from llamactl.masking import mask_log_line

LINE_CHARACTERS = 500
"""Characters read of a line: masking takes quadratic time."""
EXCERPT_CHARACTERS = 300

_ERROR = re.compile(
    r"error|fail|fatal|exception|abort|panic|denied|refused|cannot|can't|couldn't|unable|invalid"
    r"|not found|no such|unknown|unsupported|out of memory|missing|terminate",
    re.IGNORECASE,
)


def shown_line(line: str) -> str:
    """Return the beginning of a log line without likely secrets, for clients."""
    return mask_log_line(line[:LINE_CHARACTERS])


def telling_line(log_tail: Sequence[str]) -> str:
    """Return the last line with a sign of failure, else with an error, else the last line.

    The line is masked, bounded, and without control characters; ``""`` for an empty log. Indented
    lines are code of a traceback, and count only if there are no others.
    """
    lines = [line for text in log_tail if (line := _printed(text))]
    plain = [line for line in lines if not line.startswith((" ", "\t"))] or lines
    found = _last(plain, "|".join(f"(?:{_unnamed(sign.pattern)})" for sign in failure_signs()))
    found = found or _last(plain, _ERROR) or (plain[-1] if plain else "")
    found = mask_log_line(found.strip())
    is_long = len(found) > EXCERPT_CHARACTERS
    return f"{found[:EXCERPT_CHARACTERS]}…" if is_long else found


def _printed(text: str) -> str:
    """Return a line as a terminal shows it at its end: a progress bar overwrites itself."""
    parts = sanitize_text(text[:LINE_CHARACTERS]).split("\n")
    return next((part.rstrip() for part in reversed(parts) if part.strip()), "")


def _last(lines: Sequence[str], pattern: str | re.Pattern[str]) -> str:
    return next((line for line in reversed(lines) if re.search(pattern, line)), "")


def _unnamed(pattern: str) -> str:
    """Return the pattern without the names of its groups, of which a pattern has one each."""
    return re.sub(r"\(\?P<\w+>", "(?:", pattern)
