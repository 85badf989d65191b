"""Errors of operations on an instance, with the seed's error codes."""

from __future__ import annotations

from llamactl.core.errors import LlamactlError, PermissionDenied

RETRY_DELETE_SECONDS = 5


class InstanceNotFound(LlamactlError):
    """No instance has this name."""

    code = "invalid_instance"  # the seed's; its status was 400
    status = 404

    def __init__(self, name: str) -> None:
        super().__init__(
            f"instance with name {name[:80]} not found; GET /api/v1/instances lists the known ones"
        )


class InvalidInstanceName(LlamactlError):
    """The name breaks the rule of ``instances.names``."""

    code = "invalid_instance_name"
    status = 400


class InvalidInstance(LlamactlError):
    """The options document breaks a rule; ``details`` names the field, the value and the rule."""

    code = "invalid_instance"
    status = 400


class PreflightFailed(LlamactlError):
    """A preflight check found errors, such as a missing model file; nothing was saved.

    ``extra`` holds the ``errors`` and ``warnings`` of the check, in the form of a dry run.
    """

    code = "invalid_instance"
    status = 400


class InstanceExists(LlamactlError):
    """Another instance has the name, or has it as an alias."""

    code = "create_failed"
    status = 409

    def __init__(self, name: str, why: str = "") -> None:
        """``why``: what else than an instance the name is."""
        super().__init__(
            f"name {name} {why}; choose another name, or remove the alias"
            if why
            else f"instance with name {name} already exists; choose another name, or PUT to change"
            " it"
        )


class AliasTaken(InvalidInstance):
    """An alias that is a name or an alias already."""

    status = 409

    def __init__(self, alias: str, owner: str) -> None:
        super().__init__(f"aliases: {alias[:80]!r} is {owner} already; choose another alias")


class TooManyInstances(LlamactlError):
    """``instances.max_instances`` is reached."""

    code = "max_instances_reached"
    status = 409

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"maximum number of instances ({limit}) reached; delete one or raise"
            " instances.max_instances"
        )


class NoCapacity(LlamactlError):
    """A start that the limits of the node can never allow; the code is the seed's."""

    code = "max_instances_reached"
    status = 409

    def __init__(self, name: str, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(
            f"cannot start instance {name}: {reason}; stop one, or raise the limit",
            retry_after=retry_after,
        )


class NoCapacityForActivation(NoCapacity):
    """An activation that the limits of the node can never allow."""

    status = 503


class PortUnavailable(LlamactlError):
    """The requested port is taken, or no port of the range is free."""

    code = "create_failed"
    status = 409


class PortOutOfRange(LlamactlError):
    """The requested port is outside ``instances.port_range``."""

    code = "create_failed"
    status = 400


class InstanceBusy(LlamactlError):
    """A delete of an instance that has, or is about to have, a process."""

    code = "delete_failed"
    status = 409


class InstanceStopping(InstanceBusy):
    """A delete during the stop of the instance."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"instance with name {name} is stopping, and its process has not ended yet; delete it"
            " again in a moment, or with ?wait=60",
            retry_after=RETRY_DELETE_SECONDS,
        )


class InstanceNotRunning(LlamactlError):
    """The instance is stopped, and no request may start it."""

    code = "instance_not_running"
    status = 503


class StoppedByOperator(InstanceNotRunning):
    """The hold after an operator's stop: a client's retry must not undo it."""

    code = "stopped_by_operator"

    def __init__(self, name: str, seconds_left: int) -> None:
        super().__init__(
            f"instance {name} was stopped by an operator; for {seconds_left} s no request starts it"
            " again",
            retry_after=seconds_left,
        )


class StartNotPermitted(PermissionDenied):
    """An instance that does not run, and that the request's key may not start."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"permission denied: instance {name} is not running, and this key may not start it"
            " (can_start)"
        )


class InstanceShuttingDown(LlamactlError):
    """An operator's stop is under way."""

    code = "instance_shutting_down"
    status = 503


class FollowingNotServed(LlamactlError):
    """``follow`` under a WSGI server, which would buffer the endless response."""

    code = "logs_failed"
    status = 501


class TooManyFollowers(LlamactlError):
    """The number of clients that follow logs is at its limit."""

    code = "too_many_followers"
    status = 503


class BackendStartFailed(LlamactlError):
    """The backend did not become ready.

    ``extra`` holds ``reason`` (a ``FailureReason``), ``exit_code`` (int or null) and
    ``log_tail`` (the last lines of the backend's log).
    """

    code = "backend_start_failed"
    status = 502


class BackendStartTimeout(BackendStartFailed):
    """The backend is still loading, and the request has reached its timeout."""

    status = 503
