"""Classification of an unrequested exit: its reason, and advice for the operator."""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Sequence

from instances.backends.failure_signs import LAUNCH_SIGNS, FailureReason, FailureSign
from instances.backends.registry import BACKENDS

_EXIT_CODES = {126: "can't be executed", 127: "doesn't exist"}
"""Exit codes of shells, ``env`` and docker for a program that they could not start."""


def failure_signs() -> tuple[FailureSign, ...]:
    """Return the signs of all backends in the registry's order, then those of shells and docker.

    An instance's ``command_override`` may be another backend's program, or a wrapper around such a
    program, so the signs of all backends are tried.
    """
    signs = [sign for backend in BACKENDS.values() for sign in backend.failure_signs]
    return tuple(dict.fromkeys([*signs, *LAUNCH_SIGNS]))


def classify_exit(
    *, exit_code: int | None, signal: int | None, log_tail: Sequence[str]
) -> tuple[FailureReason, str]:
    """Find the reason of an exit that was not requested, and a sentence of advice.

    ``exit_code`` or ``signal`` is how the process ended, None if unknown. ``log_tail`` has the last
    log lines of this run alone, oldest first. The last line with a sign counts: programs print the
    cause first, and consequences and usage texts after the cause without a sign.
    """
    signs = failure_signs()
    for line in reversed(log_tail):
        for sign in signs:
            if found := re.search(sign.pattern, line.rstrip()):
                details = sign.details.format(**found.groupdict())
                return sign.reason, details[:1].upper() + details[1:]
    if exit_code in _EXIT_CODES:
        problem = f"The program {_EXIT_CODES[exit_code]} (exit code {exit_code})"
        advice = "install it, or set the backend's command."
        return FailureReason.EXECUTABLE_NOT_FOUND, f"{problem}: {advice}"
    return FailureReason.CRASHED, describe_end(exit_code, signal)


LOOK_AT_LOG = ": look at the end of the log."
"""End of the description of an exit without a known reason."""


def describe_end(exit_code: int | None, signal: int | None) -> str:
    """Describe in a sentence how a process ended; the arguments are those of ``classify_exit``."""
    if signal is None and exit_code is not None and exit_code > 128:
        signal = exit_code - 128  # how shells, docker and the embedded server report a signal
    if signal == signals.SIGKILL:
        return f"Killed by SIGKILL (possibly the system's out-of-memory killer){LOOK_AT_LOG}"
    if signal is not None:
        try:
            name = signals.Signals(signal).name
        except ValueError:
            name = f"signal {signal}"
        return f"Killed by {name}{LOOK_AT_LOG}"
    if exit_code is None:
        return f"Ended, it is not known how{LOOK_AT_LOG}"
    return f"Ended with exit code {exit_code}{LOOK_AT_LOG}"
