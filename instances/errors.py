"""Why an operation on an instance is refused, in the seed's error codes."""

from __future__ import annotations

from llamactl.core.errors import LlamactlError


class InstanceNotFound(LlamactlError):
    code = "invalid_instance"  # the seed's; its status was 400
    status = 404

    def __init__(self, name: str) -> None:
        super().__init__(
            f"instance with name {name[:80]} not found; GET /api/v1/instances lists the known ones"
        )


class InvalidInstanceName(LlamactlError):
    code = "invalid_instance_name"
    status = 400


class InvalidInstance(LlamactlError):
    """The options document breaks a rule; ``details`` names the field, the value and the rule."""

    code = "invalid_instance"
    status = 400


class PreflightFailed(LlamactlError):
    """The options are in order, but do not fit what is really there; nothing was saved.

    ``extra`` holds ``errors`` and ``warnings``, as a dry run has them.
    """

    code = "invalid_instance"
    status = 400


class InstanceExists(LlamactlError):
    code = "create_failed"
    status = 409

    def __init__(self, name: str) -> None:
        super().__init__(
            f"instance with name {name} already exists; choose another name, or PUT to change it"
        )


class TooManyInstances(LlamactlError):
    code = "max_instances_reached"
    status = 409

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"maximum number of instances ({limit}) reached; delete one or raise"
            " instances.max_instances"
        )


class NoCapacity(LlamactlError):
    """A start by hand that the limits of the node will never allow; the code is the seed's."""

    code = "max_instances_reached"
    status = 409

    def __init__(self, name: str, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(
            f"cannot start instance {name}: {reason}; stop one, or raise the limit",
            retry_after=retry_after,
        )


class NoCapacityForActivation(NoCapacity):
    """A request for an instance that the limits of the node keep from being started."""

    status = 503


class PortUnavailable(LlamactlError):
    """The asked-for port is out of range or taken, or the range is used up."""

    code = "create_failed"
    status = 409


class PortOutOfRange(LlamactlError):
    code = "create_failed"
    status = 400


class InstanceBusy(LlamactlError):
    """A delete of an instance that still has, or may get, a process."""

    code = "delete_failed"
    status = 409


class InstanceNotRunning(LlamactlError):
    code = "instance_not_running"
    status = 503


class InstanceShuttingDown(LlamactlError):
    code = "instance_shutting_down"
    status = 503


class FollowingNotServed(LlamactlError):
    """A WSGI server would collect an answer that has no end."""

    code = "logs_failed"
    status = 501


class TooManyFollowers(LlamactlError):
    code = "too_many_followers"
    status = 503


class BackendStartFailed(LlamactlError):
    """The backend did not become ready.

    ``extra`` holds ``reason`` (a ``FailureReason``), ``exit_code`` (int or null) and
    ``log_tail`` (the last lines it wrote).
    """

    code = "backend_start_failed"
    status = 502


class BackendStartTimeout(BackendStartFailed):
    """It is still loading, but the request has waited as long as it may."""

    status = 503
