"""What every refusal of llamactl carries: a code, a status and a sentence that says what to do."""

from __future__ import annotations

from typing import ClassVar


class LlamactlError(Exception):
    """The root of the error tree; each app has its own branch in ``<app>/errors.py``.

    ``code`` is the seed's error string and ``status`` the HTTP status that goes with it. Two
    renderers turn an error into an answer: ``to_document`` here (the seed's shape) and
    ``proxy.errors`` (the OpenAI and Anthropic shapes).
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, details: str, *, retry_after: float | None = None, **extra: object) -> None:
        super().__init__(details)
        self.details = details
        self.retry_after = retry_after
        """Seconds after which the same request may succeed; sent as ``Retry-After``."""
        self.extra = extra
        """Further fields of the answer (``reason``, ``exit_code``, ``log_tail`` …)."""

    def to_document(self) -> dict[str, object]:
        """The seed's error body: ``{"error": code, "details": text, …}``."""
        return {"error": self.code, "details": self.details, **self.extra}


class InvalidRequest(LlamactlError):
    """The request itself is wrong: a body that is no JSON, a field of the wrong type."""

    code = "invalid_request"
    status = 400


class InvalidParameter(LlamactlError):
    """A query parameter is wrong."""

    code = "invalid_parameter"
    status = 400


class MethodNotAllowed(LlamactlError):
    code = "method_not_allowed"
    status = 405


class DatabaseUnavailable(LlamactlError):
    """The database is away, or was locked for longer than we wait."""

    code = "database_unavailable"
    status = 503
