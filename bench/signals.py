"""The end of an interrupted benchmark: its processes are stopped in order."""

from __future__ import annotations

import signal
import sys
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_in_order() -> None:
    """Make the signals that end a program leave through every ``finally`` of it."""
    for signum in _ENDING:
        signal.signal(signum, _end)


def _end(signum: int, _frame: FrameType | None) -> None:
    """A second signal does not disturb the cleaning up."""
    for each in _ENDING:
        signal.signal(each, _already_ending)
    print("stopping …", file=sys.stderr, flush=True)
    raise SystemExit(128 + signum)


def _already_ending(_signum: int, _frame: FrameType | None) -> None:
    """Not SIG_IGN, which the programs that we start would inherit."""
