"""Failures of a backend, as clients and operators read them."""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from instances.backends.exit_reasons import LOOK_AT_LOG, classify_exit, describe_end
from instances.backends.failure_signs import FailureReason
from instances.supervisor.controller.log_excerpt import shown_line, telling_line
from llamactl.config.schema import InstancesConfig
from llamactl.core.errors import LlamactlError

TAIL_LINES = 20
TAIL_BYTES = 256 * 1024
DETAILS_CHARACTERS = 1000

_PERMANENT = frozenset(
    {
        FailureReason.BAD_FLAG,
        FailureReason.MODEL_NOT_FOUND,
        FailureReason.EXECUTABLE_NOT_FOUND,
    }
)
"""Reasons that the same command meets again."""

_START_REASONS = _PERMANENT | {FailureReason.PORT_IN_USE}
"""Reasons that prevent a start, and can't be the reason once a program has started."""

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
    """As in Python: minus the signal's number for a process that a signal ended."""
    log_tail: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        # A log line may be of any length, and a path may hold bytes that no database stores.
        text = self.details[:DETAILS_CHARACTERS].encode("utf-8", "replace").decode()
        object.__setattr__(self, "details", text.replace("\0", "\ufffd"))

    def is_retryable(self, *, may_move: bool) -> bool:
        """Whether the same command may succeed later; ``may_move``: on another port, if need be."""
        if self.reason is FailureReason.PORT_IN_USE:
            return may_move
        return self.reason not in _PERMANENT

    def to_document(self) -> dict[str, object]:
        return {
            "reason": self.reason.value,
            "details": self.details,
            "exit_code": self.exit_code,
            "log_tail": [shown_line(line) for line in self.log_tail[-TAIL_LINES:]],
        }


def exit_failure(
    exit_code: int | None, log_tail: Sequence[str], *, was_ready: bool = False
) -> Failure:
    """The failure of a process that ended by itself; ``was_ready``: after it was ready.

    The details of a failed start repeat the telling line of the log. Those of a crash do not: the
    last lines may be about other clients' requests.
    """
    by_signal = exit_code is not None and exit_code < 0
    code = None if by_signal else exit_code
    number = -exit_code if exit_code is not None and by_signal else None
    reason, details = classify_exit(exit_code=code, signal=number, log_tail=log_tail)
    if was_ready and reason in _START_REASONS:
        # The program did start, so the log line is about something else: a request's text, say.
        reason, details = FailureReason.CRASHED, describe_end(code, number)
    if by_signal and exit_text(exit_code) not in details:
        details = f"{exit_text(exit_code)}. {details}"
    if not was_ready:
        details = _with_telling_line(details, log_tail)
    return Failure(reason, details, exit_code, log_tail)


def deadline_failure(
    reason: FailureReason,
    limits: InstancesConfig,
    exit_code: int | None,
    log_tail: Sequence[str],
    *,
    last_answer: str = "",
) -> Failure:
    """The failure of a process that missed the startup or the liveness deadline.

    ``last_answer``: what the last startup probe got.
    """
    if reason is FailureReason.TIMEOUT:
        seconds = limits.start_timeout
        details = f"not ready within {seconds:g} s (instances.start_timeout), so it was stopped"
        if last_answer:
            details += f"; the last probe got: {last_answer}"
        details = _with_telling_line(details, log_tail)
    else:
        seconds = limits.unhealthy_timeout
        details = (
            f"no answer and no output for {seconds:g} s (instances.unhealthy_timeout), so it was"
            " stopped"
        )
    return Failure(reason, details, exit_code, log_tail)


def _with_telling_line(details: str, log_tail: Sequence[str]) -> str:
    """Return the details with the telling line of the log, unless they have its words already."""
    line = telling_line(log_tail)
    if not line or details.removesuffix(".").lower() in line.lower():
        return details
    return f"{details.removesuffix(LOOK_AT_LOG).removesuffix('.')}. The log says: {line}"


def port_failure(foreign: str, log_tail: Sequence[str]) -> Failure:
    """The failure of a process that lost its port to another program, named by ``foreign``."""
    details = (
        f"{foreign}, which this instance did not start, so the instance was ended and nothing is"
        " sent there; end that program, leave backend_options.port out to get a free port, or set"
        " instances.check_listener to false if the instance's command lets that program listen"
    )
    return Failure(FailureReason.PORT_IN_USE, details, None, log_tail)


def exit_text(exit_code: int | None) -> str:
    """Return ``exit code 1``, or ``Killed by SIGSEGV``; an adopted process has no known code."""
    if exit_code is None:
        return "exit code unknown"
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"Killed by {signal.Signals(-exit_code).name}"
    except ValueError:  # a real-time signal
        return f"Killed by signal {-exit_code}"


def supervision_failure(error: Exception) -> Failure:
    """The failure of an instance after repeated errors in its supervision.

    The exception's type alone: its text may hold anything, keys included, and each client that
    waited for the instance reads the failure.
    """
    return Failure(
        FailureReason.SUPERVISION,
        f"llamactl's supervision of this instance failed ({type(error).__name__}); the worker's"
        " log has the traceback. Start the instance to try again",
    )


def refusal_failure(error: LlamactlError) -> Failure:
    """The failure of a launch that llamactl refused before there was a process."""
    try:
        reason = FailureReason(str(error.extra.get("reason")))
    except ValueError:  # the options can't be expressed as arguments of the program
        reason = FailureReason.BAD_FLAG
    return Failure(reason, error.details)


def log_failure(path: Path, error: OSError) -> Failure:
    """The failure of a launch without a writable log file."""
    problem = error.strerror or type(error).__name__
    details = (
        f"the log {path} can't be written ({problem}), so nothing was started: let llamactl's user"
        " write there, or set instances.logs_dir to another directory"
    )
    return Failure(FailureReason.LOG_UNWRITABLE, details)


def directory_failure(directory: Path, error: OSError) -> Failure:
    """The failure of a launch in a working directory that can't be entered."""
    problem = error.strerror or type(error).__name__
    details = (
        f"the working directory {directory} can't be entered ({problem}): let llamactl's user"
        " enter it, or choose another working_directory"
    )
    return Failure(FailureReason.BAD_FLAG, details)


def spawn_failure(step: str, error: OSError | ValueError) -> Failure:
    """The failure of a launch that the system refused; ``step`` names the failed step."""
    if not isinstance(error, OSError):  # a NUL in an argument
        return Failure(FailureReason.BAD_FLAG, f"{step}: {error}")
    return Failure(_SPAWN_REASONS.get(error.errno or 0, FailureReason.CRASHED), f"{step}: {error}")
