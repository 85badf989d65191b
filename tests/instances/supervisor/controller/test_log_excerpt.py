"""The line of the log that clients read in the message of a failed start."""

from __future__ import annotations

import pytest

from instances.backends.failure_signs import FailureReason
from instances.supervisor.controller.log_excerpt import telling_line
from instances.supervisor.failure import deadline_failure, exit_failure
from llamactl.config import AppConfig


@pytest.mark.parametrize(
    ("log_tail", "line"),
    [
        ([], ""),
        (["", "  "], ""),
        (["loading", "the flux capacitor is gone", ""], "the flux capacitor is gone"),
        (["E no such device: cuda:7", "cleaning up", "bye"], "E no such device: cuda:7"),
        # A known sign says more than a later error.
        (["E x: cudaMalloc failed: out of memory", "error: exiting"], "E x: cudaMalloc failed"),
        (["Traceback:", '    raise KeyError("x")', "KeyError: 'x'", "  at exit"], "KeyError: 'x'"),
        (["\x1b[31merror: red\x1b[0m"], "error: red"),
        (["10 %\r50 %\rfailed at 51 %\r"], "failed at 51 %"),
        (["a\x07b\u202ec failed"], "a\\u0007b\\u202ec failed"),
        (["error: HF_TOKEN=hf_abcdefghijkl is refused"], "error: HF_TOKEN=*** is refused"),
    ],
)
def test_telling_line_is_the_cause_as_a_person_reads_it(log_tail: list[str], line: str) -> None:
    found = telling_line(log_tail)
    assert found.startswith(line)
    assert bool(found) is bool(line)


def test_telling_line_is_bounded() -> None:
    assert len(telling_line(["error " + "x" * 10_000_000])) == 301


def test_message_of_a_failed_start_has_the_line_in_place_of_the_advice_to_look() -> None:
    failure = exit_failure(3, ["loading", "boom: no flux"])
    assert failure.details == "Ended with exit code 3. The log says: boom: no flux"
    assert exit_failure(3, []).details == "Ended with exit code 3: look at the end of the log."
    known = exit_failure(-6, ["CUDA error: out of memory"])
    assert known.details.endswith("The log says: CUDA error: out of memory")
    # It should not say the same twice.
    own = exit_failure(1, ["error: no model file is given, set model"])
    assert "The log says" not in own.details


def test_message_of_a_late_start_has_the_line_too(config: AppConfig) -> None:
    failure = deadline_failure(FailureReason.TIMEOUT, config.instances, -9, ["waiting for GPU 7"])
    assert failure.details.endswith("so it was stopped. The log says: waiting for GPU 7")


def test_message_of_a_later_crash_repeats_no_line() -> None:
    # The last lines may be the prompt of another client.
    failure = exit_failure(1, ["error in the prompt of somebody else"], was_ready=True)
    assert failure.details == "Ended with exit code 1: look at the end of the log."


def test_last_lines_are_masked() -> None:
    document = exit_failure(1, ["PASSWORD=sesame", "x" * 600]).to_document()
    assert document["log_tail"] == ["PASSWORD=***", "x" * 500]
