"""The root of the error tree, and the errors that several apps raise.

Each app has its own branch in ``<app>/errors.py``. ``llamactl.core.error_format`` renders every
error, in the document shape of the request's path.
"""

from __future__ import annotations

from typing import ClassVar


class LlamactlError(Exception):
    """A refusal with a code for programs, an HTTP status, and a sentence that says what to do."""

    code: ClassVar[str] = "internal_error"
    """The error string of the seed's API."""
    status: ClassVar[int] = 500
    param: ClassVar[str | None] = None
    """The request parameter at fault, for OpenAI's ``param``."""

    def __init__(self, details: str, *, retry_after: float | None = None, **extra: object) -> None:
        super().__init__(details)
        self.details = details
        self.retry_after = retry_after
        """Seconds after which the same request may succeed; sent as ``Retry-After``, whose limit is
        ``error_format.LONGEST_RETRY_AFTER_SECONDS``."""
        self.extra = extra
        """Further fields of the error document (``reason``, ``exit_code``, ``log_tail`` …)."""


class InvalidRequest(LlamactlError):
    """A malformed request: a body that is not JSON, a field of the wrong type."""

    code = "invalid_request"
    status = 400


class InvalidParameter(LlamactlError):
    """A wrong query parameter."""

    code = "invalid_parameter"
    status = 400


class MissingKey(LlamactlError):
    """A request without a key in any of the three places.

    Also a request with the bare key, or with the scheme Basic or Token, in Authorization: the text
    repeats none of it, because it may be a key.
    """

    code = "missing_api_key"
    status = 401

    def __init__(self) -> None:
        super().__init__(
            "Missing API key: send it as the header 'Authorization: Bearer KEY' (no other scheme)"
            " or 'X-API-Key: KEY', or as the query parameter 'api_key=KEY'"
        )


class InvalidKey(LlamactlError):
    code = "invalid_api_key"
    status = 401

    def __init__(self) -> None:
        super().__init__("Invalid API key")


class PermissionDenied(LlamactlError):
    code = "permission_denied"
    status = 403

    def __init__(self, details: str = "permission denied") -> None:
        super().__init__(details)


class PathNotFound(LlamactlError):
    code = "not_found"
    status = 404


class MethodNotAllowed(LlamactlError):
    """A method that the path does not take; ``allowed`` are the methods that it does take."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, method: str, path: str, allowed: tuple[str, ...] = ()) -> None:
        instead = f"; use {' or '.join(allowed)}" if allowed else ""
        super().__init__(f"{method} is not allowed on {path[:200]}{instead}")
        self.allowed = allowed


class BodyTooLarge(LlamactlError):
    """A request body beyond its limit; the code is the management API's."""

    code = "invalid_request"
    status = 413


class UriTooLong(LlamactlError):
    """A request target beyond its limit."""

    code = "uri_too_long"
    status = 414

    def __init__(self, limit: int) -> None:
        super().__init__(f"The path and query are longer than {limit} bytes; use the body")


class DatabaseUnavailable(LlamactlError):
    """The database is unreachable, or was locked for longer than the time limit."""

    code = "database_unavailable"
    status = 503

    def __init__(self, details: str = "the database does not answer; try again") -> None:
        super().__init__(details, retry_after=5)


class UnexpectedFailure(LlamactlError):
    """A defect of llamactl; the log has the traceback, and the client no details."""

    def __init__(self) -> None:
        super().__init__("llamactl failed on this request; its own log says why")


class PackedBody(LlamactlError):
    """A request body with a Content-Encoding; the response says which codings are accepted."""

    code = "unsupported_content_encoding"
    status = 415

    def __init__(self, coding: str, accepted: str = "") -> None:
        """``accepted``: the codings that the path takes, separated by commas."""
        instead = f" or as {accepted}" if accepted else ""
        super().__init__(
            f"a request body with Content-Encoding {coding!r} is not accepted here; send it"
            f" unpacked{instead}"
        )
        self.accepted = accepted or "identity"
