"""Errors of a response that did not come, or not to its end."""

from __future__ import annotations

from instances.desired_state import is_by_operator
from instances.states import DesiredState
from llamactl.core.errors import LlamactlError
from proxy import errors
from proxy.table.table import RoutingTable, Target
from proxy.upstream import BackendError, BrokeOff, Refused, Stalled, Unanswered


def interruption_of(target: Target, table: RoutingTable) -> LlamactlError | None:
    """The operator's request that ended the process of ``target``; None without one.

    A stop waits for the requests in flight, but no longer than ``instances.drain_timeout``.
    """
    now = table.targets.get(target.name)
    if now is None or now.id != target.id:
        return errors.BackendBrokeOff(f"instance {target.name} was deleted by an operator")
    if not is_by_operator(now.requested_by):
        return None
    if now.desired_state is DesiredState.STOPPED:
        return errors.ResponseStopped(target.name)
    if now.generation > target.generation:
        return errors.BackendBrokeOff(f"instance {target.name} was restarted by an operator")
    return None


def broken_off(error: BrokeOff | Stalled) -> LlamactlError:
    """The error of a response that ended in the middle without a request of an operator."""
    if isinstance(error, Stalled):
        return errors.BackendStalled(f"The backend fell silent ({error}); see its log.")
    return errors.BackendBrokeOff("The backend ended; see its log")


def no_response(target: Target, error: BackendError) -> LlamactlError:
    """The error of a response that has not begun."""
    logs = f"see GET /api/v1/instances/{target.name}/logs"
    if isinstance(error, Stalled):
        return errors.BackendStalled(f"the backend of {target.name} is silent ({error}); {logs}")
    if isinstance(error, Refused | Unanswered):
        return errors.BackendUnreachable(f"the backend of {target.name} does not answer; {logs}")
    return errors.BackendUnreachable(
        f"the response of the backend of {target.name} is no HTTP/1.1; {logs}"
    )
