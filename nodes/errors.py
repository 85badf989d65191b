"""Errors of operations on nodes, with the Go API's error codes."""

from __future__ import annotations

from llamactl.core.errors import LlamactlError


class NodeNotFound(LlamactlError):
    """A node that neither the config nor the database knows."""

    code = "not_found"
    status = 404

    def __init__(self, name: str) -> None:
        super().__init__(f"node {name[:80]!r} not found; GET /api/v1/nodes lists the known ones")


class LogUnreadable(LlamactlError):
    """A log that the instance's node can't read."""

    code = "logs_failed"
    status = 500

    def __init__(self, instance: str, reason: str) -> None:
        super().__init__(f"the log of {instance} can't be read: {reason}")
        self.reason = reason
        """The system's words: "Permission denied"."""


class NodeDrained(LlamactlError):
    """A start on a drained node."""

    code = "node_drained"
    status = 503

    def __init__(self, name: str) -> None:
        super().__init__(
            f"node {name} is drained for maintenance and starts nothing; put it back to work with"
            f" 'manage.py drain --node {name} --resume' or in the admin"
        )


class InvalidNodeName(LlamactlError):
    """A text that can't be a node's name."""

    code = "invalid_request"
    status = 400

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Invalid node name {name[:80]!r}: 1 to 100 characters without blanks and slashes"
        )
