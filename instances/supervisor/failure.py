"""Why did a backend fail, as it is told to those who wait for it?"""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from instances.backends.exit_reasons import classify_exit, describe_end
from instances.backends.failure_signs import FailureReason
from llamactl.config.schema import InstancesConfig
from llamactl.core.errors import LlamactlError

TAIL_LINES = 20
TAIL_LINE_CHARACTERS = 500
TAIL_BYTES = 256 * 1024
DETAILS_CHARACTERS = 1000

_INCURABLE = frozenset(
    {
        FailureReason.BAD_FLAG,
        FailureReason.MODEL_NOT_FOUND,
        FailureReason.EXECUTABLE_NOT_FOUND,
    }
)
"""What the same command will meet again."""

_OF_STARTS = _INCURABLE | {FailureReason.PORT_IN_USE}
"""What keeps a program from starting, and no longer concerns one that has started."""

_SPAWN_REASONS = {
    errno.ENOENT: FailureReason.EXECUTABLE_NOT_FOUND,
    errno.EACCES: FailureReason.EXECUTABLE_NOT_FOUND,
    errno.EPERM: FailureReason.EXECUTABLE_NOT_FOUND,
    errno.ENOEXEC: FailureReason.EXECUTABLE_NOT_FOUND,
    errno.E2BIG: FailureReason.BAD_FLAG,
    errno.ENOMEM: FailureReason.OUT_OF_MEMORY,
}


@dataclass(frozen=True)
class Failure:
    """``Instance.failure``."""

    reason: FailureReason
    details: str
    exit_code: int | None = None
    """As Python has it: minus the number of the signal that ended it."""
    log_tail: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        # A log line may be of any length, and a path of bytes that no database takes.
        text = self.details[:DETAILS_CHARACTERS].encode("utf-8", "replace").decode()
        object.__setattr__(self, "details", text.replace("\0", "\ufffd"))

    def is_curable(self, *, may_move: bool) -> bool:
        """Whether the same command may fare better; ``may_move``: on another port, if need be."""
        if self.reason is FailureReason.PORT_IN_USE:
            return may_move
        return self.reason not in _INCURABLE

    def to_document(self) -> dict[str, object]:
        return {
            "reason": self.reason.value,
            "details": self.details,
            "exit_code": self.exit_code,
            "log_tail": [line[:TAIL_LINE_CHARACTERS] for line in self.log_tail[-TAIL_LINES:]],
        }


def exit_failure(
    exit_code: int | None, log_tail: Sequence[str], *, was_ready: bool = False
) -> Failure:
    """The failure of a process that ended by itself; ``was_ready``: after it had got ready."""
    by_signal = exit_code is not None and exit_code < 0
    code = None if by_signal else exit_code
    number = -exit_code if exit_code is not None and by_signal else None
    reason, details = classify_exit(exit_code=code, signal=number, log_tail=log_tail)
    if was_ready and reason in _OF_STARTS:
        # It did start, so the line is of something else: of a request's text, say.
        reason, details = FailureReason.CRASHED, describe_end(code, number)
    if by_signal and exit_text(exit_code) not in details:
        details = f"{exit_text(exit_code)}. {details}"
    return Failure(reason, details, exit_code, log_tail)


def useless(
    reason: FailureReason, limits: InstancesConfig, exit_code: int | None, log_tail: Sequence[str]
) -> Failure:
    """The failure of a process that was ended because it was of no use."""
    if reason is FailureReason.TIMEOUT:
        seconds = limits.start_timeout
        details = f"not ready within {seconds:g} s (instances.start_timeout), so it was stopped"
    else:
        seconds = limits.unhealthy_timeout
        details = (
            f"it answered nothing for {seconds:g} s (instances.unhealthy_timeout), so it was ended"
        )
    return Failure(reason, details, exit_code, log_tail)


def exit_text(exit_code: int | None) -> str:
    """``exit code 1`` or ``Killed by SIGSEGV``; of an adopted process nobody knows."""
    if exit_code is None:
        return "exit code unknown"
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"Killed by {signal.Signals(-exit_code).name}"
    except ValueError:  # a real-time signal
        return f"Killed by signal {-exit_code}"


def fault(error: Exception) -> Failure:
    """The failure of an instance whose supervision raises again and again.

    The exception's type alone: its text may be of anything, keys included, and goes to everybody
    who waited for the instance.
    """
    return Failure(
        FailureReason.SUPERVISION,
        f"llamactl made a mistake in supervising it ({type(error).__name__}) and gave up; the"
        " worker's log says where. Start it again to try again",
    )


def refusal(error: LlamactlError) -> Failure:
    """The failure of a launch that was refused before there was a process."""
    try:
        reason = FailureReason(str(error.extra.get("reason")))
    except ValueError:  # what the options say can't be told to the program
        reason = FailureReason.BAD_FLAG
    return Failure(reason, error.details)


def spawn_failure(what: str, error: OSError | ValueError) -> Failure:
    """The failure of a launch that the system refused; ``what`` could not be done."""
    if not isinstance(error, OSError):  # a NUL in an argument
        return Failure(FailureReason.BAD_FLAG, f"{what}: {error}")
    return Failure(_SPAWN_REASONS.get(error.errno or 0, FailureReason.CRASHED), f"{what}: {error}")
