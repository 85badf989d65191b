"""Holds: times in which no request starts an instance.

Clients repeat a failed request, some of them 30 times in a minute (codex), and most know no
``x-should-retry``. Without a hold each repetition would start a broken backend once more, which may
preempt others, or undo an operator's stop a moment later. A start by an operator ends every hold.

The end of a hold is a column of the row, so it holds in every web process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any, Protocol

from instances.desired_state import InstanceState, has_pending_generation, start_failure
from instances.errors import BackendStartFailed, StoppedByOperator
from instances.states import ON_DEMAND, DesiredState, Status
from llamactl.config import current

LONGEST_FAILURE_HOLD_SECONDS = 300
CLOCKS_APART_SECONDS = 60
"""The clocks of a web process and of a worker on another machine may differ so much."""


class HeldState(InstanceState, Protocol):
    """Desired and observed state of one instance, with its holds."""

    @property
    def stop_hold_until(self) -> datetime | None: ...
    @property
    def failure_hold_until(self) -> datetime | None: ...
    @property
    def edited_generation(self) -> int: ...


@dataclass(frozen=True)
class Hold:
    """A hold that has not ended yet."""

    until: datetime
    reason: str
    """Code of the error that requests get during the hold."""

    def seconds_left(self, now: datetime) -> int:
        return ceil((self.until - now).total_seconds())


def hold_of(state: HeldState, now: datetime) -> Hold | None:
    """Return the hold that refuses activations at ``now``, or ``None``."""
    return _stop_hold(state, now) or _failure_hold(state, now)


def refuse_while_held(state: HeldState, now: datetime) -> None:
    """Refuse an activation during a hold.

    Raises StoppedByOperator after an operator's stop. Raises BackendStartFailed, with the recorded
    failure, after a start that a request caused; an edit of the options ends that hold.
    """
    refuse_after_stop(state, now)
    hold = _failure_hold(state, now)
    if hold is not None:
        raise start_failure(state.name, _with_outlook(state.failure, hold.seconds_left(now)))


def refuse_after_stop(state: HeldState, now: datetime) -> None:
    """Raise StoppedByOperator during the hold after an operator's stop."""
    hold = _stop_hold(state, now)
    if hold is not None:
        raise StoppedByOperator(state.name, hold.seconds_left(now))


def _stop_hold(state: HeldState, now: datetime) -> Hold | None:
    until = state.stop_hold_until
    if until is None or until <= now or state.desired_state != DesiredState.STOPPED:
        return None
    hold = Hold(until, StoppedByOperator.code)
    longest = current().instances.operator_stop_hold + CLOCKS_APART_SECONDS
    return hold if hold.seconds_left(now) <= longest else None  # as in _failure_hold


def _failure_hold(state: HeldState, now: datetime) -> Hold | None:
    until = state.failure_hold_until
    if until is None or until <= now or not _is_failed_activation(state):
        return None
    if state.edited_generation >= state.generation:
        return None
    hold = Hold(until, BackendStartFailed.code)
    # A longer time is no hold: the clock was set back.
    return hold if hold.seconds_left(now) <= LONGEST_FAILURE_HOLD_SECONDS else None


def _is_failed_activation(state: HeldState) -> bool:
    """Whether a request caused the last start, and that start has failed."""
    return (
        state.status == Status.FAILED
        and state.desired_state == DesiredState.RUNNING
        and state.requested_by == ON_DEMAND
        and not has_pending_generation(state)
    )


def _with_outlook(failure: Mapping[str, Any] | None, seconds: int) -> dict[str, Any]:
    known = dict(failure or {})
    details = known.get("details") or "The last start failed"
    known["details"] = (
        f"{details} (the failure of the last start: for {seconds} s no request starts the instance"
        " again, only an operator)"
    )
    return known
