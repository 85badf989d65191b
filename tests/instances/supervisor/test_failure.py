from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from instances.backends.failure_signs import FailureReason
from instances.backends.values import InvalidBackendOptions
from instances.launch import ExecutableNotFound
from instances.supervisor.failure import (
    Failure,
    directory_failure,
    exit_failure,
    exit_text,
    log_failure,
    refusal_failure,
    spawn_failure,
)


@pytest.mark.parametrize(
    ("exit_code", "text"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-11, "Killed by SIGSEGV"),
        (-99, "signal 99"),
        (None, "exit code unknown"),
    ],
)
def test_an_exit_in_words(exit_code: int | None, text: str) -> None:
    assert text in exit_text(exit_code)


def test_the_reason_is_in_the_log_and_the_signal_is_named_nevertheless() -> None:
    failure = exit_failure(-6, ["CUDA error: out of memory"])
    assert failure.reason is FailureReason.OUT_OF_MEMORY
    assert failure.details.startswith("Killed by SIGABRT. ")
    assert failure.exit_code == -6


def test_a_failure_is_always_storable() -> None:
    failure = Failure(FailureReason.CRASHED, "a\0b\udcff" + "x" * 5000, 1, ["y" * 600] * 30)
    document = failure.to_document()
    assert str(document["details"]).startswith("a\ufffdb?x")
    assert len(str(document["details"])) == 1000
    assert document["log_tail"] == ["y" * 500] * 20
    json.dumps(document).encode()


@pytest.mark.parametrize(
    ("reason", "may_move", "is_retryable"),
    [
        (FailureReason.CRASHED, False, True),
        (FailureReason.OUT_OF_MEMORY, False, True),
        (FailureReason.BAD_FLAG, True, False),
        (FailureReason.MODEL_NOT_FOUND, True, False),
        (FailureReason.EXECUTABLE_NOT_FOUND, True, False),
        (FailureReason.PORT_IN_USE, False, False),
        (FailureReason.PORT_IN_USE, True, True),
    ],
)
def test_a_permanent_failure_is_not_retried(
    reason: FailureReason, may_move: bool, is_retryable: bool
) -> None:
    assert Failure(reason, "").is_retryable(may_move=may_move) is is_retryable


def test_a_refused_launch_keeps_its_reason() -> None:
    assert refusal_failure(ExecutableNotFound("no")).reason is FailureReason.EXECUTABLE_NOT_FOUND
    assert refusal_failure(InvalidBackendOptions("no")).reason is FailureReason.BAD_FLAG


def test_a_log_or_directory_that_is_refused_is_named() -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", "/x")
    log = log_failure(Path("/var/log/x.log"), refused)
    assert log.reason is FailureReason.LOG_UNWRITABLE
    assert "the log /var/log/x.log can't be written (Permission denied)" in log.details
    # A disk may come back, or be given room.
    assert log.is_retryable(may_move=False)
    directory = directory_failure(Path("/srv"), refused)
    assert directory.reason is FailureReason.BAD_FLAG
    assert "working directory /srv can't be entered (Permission denied)" in directory.details


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(errno.ENOENT, "no"), FailureReason.EXECUTABLE_NOT_FOUND),
        (PermissionError(errno.EACCES, "no"), FailureReason.EXECUTABLE_NOT_FOUND),
        (OSError(errno.E2BIG, "no"), FailureReason.BAD_FLAG),
        (OSError(errno.ENOMEM, "no"), FailureReason.OUT_OF_MEMORY),
        (OSError(errno.EAGAIN, "no"), FailureReason.CRASHED),
        (ValueError("embedded null byte"), FailureReason.BAD_FLAG),
    ],
)
def test_what_the_system_refuses_has_a_reason(
    error: OSError | ValueError, reason: FailureReason
) -> None:
    assert spawn_failure("it can't be started", error).reason is reason
