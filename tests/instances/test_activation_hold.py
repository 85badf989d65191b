"""Holds: when a request starts nothing, by the row and by the routing table alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from instances.activation_hold import Hold, hold_of, refuse_after_stop, refuse_while_held
from instances.errors import BackendStartFailed, StoppedByOperator
from instances.states import ABANDONED, EVICTED, ON_DEMAND, DesiredState, Status
from tests.proxy.conftest import make_target

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAILED: dict[str, Any] = {
    "status": Status.FAILED,
    "requested_by": ON_DEMAND,
    "generation": 2,
    "observed_generation": 2,
    "failure": {"reason": "crashed", "details": "no memory", "exit_code": 1, "log_tail": ["x"]},
    "failure_hold_until": NOW + timedelta(seconds=4.2),
}
STOPPED: dict[str, Any] = {
    "status": Status.STOPPED,
    "desired_state": DesiredState.STOPPED,
    "requested_by": "api",
    "stop_hold_until": NOW + timedelta(seconds=29.5),
}


def test_failed_activation_is_answered_by_its_failure() -> None:
    with pytest.raises(BackendStartFailed) as refused:
        refuse_while_held(make_target("", **FAILED), NOW)
    assert refused.value.details.startswith("no memory (the failure of the last start: for 5 s")
    assert refused.value.extra == {"reason": "crashed", "exit_code": 1, "log_tail": ["x"]}
    # It should be no invitation to retry.
    assert refused.value.retry_after is None


def test_hold_names_its_end_and_the_error_of_requests() -> None:
    failed, stopped = make_target("", **FAILED), make_target("", **STOPPED)
    assert hold_of(failed, NOW) == Hold(FAILED["failure_hold_until"], "backend_start_failed")
    assert hold_of(stopped, NOW) == Hold(STOPPED["stop_hold_until"], "stopped_by_operator")
    both = make_target("", **{**FAILED, **STOPPED})
    assert hold_of(both, NOW) == hold_of(stopped, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"failure_hold_until": NOW},
        {"failure_hold_until": None},
        {"failure_hold_until": NOW + timedelta(days=300)},  # the clock was set back
        {"requested_by": "api"},
        {"requested_by": "admin:bob"},
        {"edited_generation": 2},
        {"generation": 3},
        {"status": Status.STOPPED},
        {"status": Status.RESTARTING},
        {"desired_state": DesiredState.STOPPED, "requested_by": ABANDONED},
    ],
)
def test_hold_of_a_failure_ends(changes: dict[str, Any]) -> None:
    target = make_target("", **{**FAILED, **changes})
    refuse_while_held(target, NOW)
    assert hold_of(target, NOW) is None


def test_edit_before_the_failed_start_does_not_end_its_hold() -> None:
    with pytest.raises(BackendStartFailed):
        refuse_while_held(make_target("", **{**FAILED, "edited_generation": 1}), NOW)


def test_failure_without_a_document_is_still_explained() -> None:
    with pytest.raises(BackendStartFailed) as refused:
        refuse_while_held(make_target("", **{**FAILED, "failure": None}), NOW)
    assert refused.value.details.startswith("The last start failed")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"status": Status.FAILED},
        {"status": Status.SHUTTING_DOWN},
        {"requested_by": EVICTED},  # stopped by the supervisor, and then by an operator too
    ],
)
def test_operators_stop_is_not_undone_by_a_request(changes: dict[str, Any]) -> None:
    for refuse in (refuse_while_held, refuse_after_stop):
        with pytest.raises(StoppedByOperator) as refused:
            refuse(make_target("", **{**STOPPED, **changes}), NOW)
        assert (refused.value.status, refused.value.code) == (503, "stopped_by_operator")
        assert refused.value.retry_after == 30


@pytest.mark.parametrize(
    "changes",
    [
        {"stop_hold_until": None},
        {"stop_hold_until": NOW},
        {"stop_hold_until": NOW + timedelta(days=300)},  # the clock was set back
        {"desired_state": DesiredState.RUNNING},
    ],
)
def test_hold_of_a_stop_ends(changes: dict[str, Any]) -> None:
    target = make_target("", **{**STOPPED, **changes})
    refuse_while_held(target, NOW)
    assert hold_of(target, NOW) is None
