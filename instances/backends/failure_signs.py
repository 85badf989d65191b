"""Signs of failure: log lines that tell why a program ended.

Programs tell the reason of a failure in their last log lines alone, each in its own words. The
signs of a backend stand in its folder. The signs here belong to failed launches of any program.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class FailureReason(StrEnum):
    """Value of ``reason`` in the API, for a failed start or a crash."""

    MODEL_NOT_FOUND = "model_not_found"
    """Also: damaged, of the wrong kind, or impossible to download."""
    BAD_FLAG = "bad_flag"
    PORT_IN_USE = "port_in_use"
    OUT_OF_MEMORY = "out_of_memory"
    EXECUTABLE_NOT_FOUND = "executable_not_found"
    LOG_UNWRITABLE = "log_unwritable"
    """The instance's log file can't be opened, so nothing was started."""
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    SUPERVISION = "supervision_failed"
    """A mistake of llamactl's own."""
    HUNG = "hung"
    """The backend was ready, and then failed its liveness probe for too long."""


class FailureSign(NamedTuple):
    """A pattern of a log line, with the reason and the advice that a match gives."""

    pattern: str
    """A regular expression that is searched in each line of the log."""
    reason: FailureReason
    details: str
    """Advice for the operator; ``{name}`` stands for the pattern's group."""


DOWNLOAD_ADVICE = "check its name, the network and, for a protected model, HF_TOKEN."
"""End of the advice about a model that could not be downloaded."""

LAUNCH_SIGNS: tuple[FailureSign, ...] = (
    FailureSign(
        r"error while loading shared libraries: (?P<name>[^:]+)",
        FailureReason.EXECUTABLE_NOT_FOUND,
        "The program needs the library {name}: install it, or set LD_LIBRARY_PATH.",
    ),
    FailureSign(
        r"executable file not found|^\S*sh: .*not found$|^env: .*No such file or directory$",
        FailureReason.EXECUTABLE_NOT_FOUND,
        "The program doesn't exist: install it, or set the backend's command.",
    ),
    FailureSign(
        r"port is already allocated",
        FailureReason.PORT_IN_USE,
        "The port is taken: stop the program that holds it, or choose another port.",
    ),
    FailureSign(
        r"pull access denied|manifest unknown|manifest for \S+ not found",
        FailureReason.EXECUTABLE_NOT_FOUND,
        "The docker image can't be fetched: check docker.image in the config and the network.",
    ),
    FailureSign(
        r"Cannot connect to the Docker daemon|permission denied while trying to connect to the"
        r" [Dd]ocker",
        FailureReason.EXECUTABLE_NOT_FOUND,
        "Docker can't be reached: start it, and let this user use it.",
    ),
)
"""Signs of the dynamic linker, shells, ``env`` and docker."""
