"""How an error looks to a client: OpenAI's shape, Anthropic's, or the seed's, by path."""

from __future__ import annotations

from llamactl.core.errors import (
    DatabaseUnavailable,
    InvalidRequest,
    LlamactlError,
    MethodNotAllowed,
)


class MissingKey(LlamactlError):
    code = "missing_api_key"
    status = 401

    def __init__(self) -> None:
        super().__init__("Missing API key")


class InvalidKey(LlamactlError):
    code = "invalid_api_key"
    status = 401

    def __init__(self) -> None:
        super().__init__("Invalid API key")


class PermissionDenied(LlamactlError):
    code = "permission_denied"
    status = 403

    def __init__(self) -> None:
        super().__init__("permission denied: key does not have access to this instance")


class ModelNotFound(LlamactlError):
    """There is none under that name; the code is OpenAI's."""

    code = "model_not_found"
    status = 404

    def __init__(self, model: str, why: str = "no instance has that name") -> None:
        super().__init__(
            f"The model '{model[:100]}' does not exist: {why}. GET /v1/models lists the ones this"
            " key may use."
        )


class BodyTooLarge(LlamactlError):
    code = "request_too_large"
    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The request body is larger than {limit} bytes; send less, or raise"
            " server.max_body_mib"
        )


class UriTooLong(LlamactlError):
    code = "uri_too_long"
    status = 414

    def __init__(self, limit: int) -> None:
        super().__init__(f"The path and query are longer than {limit} bytes; use the body")


class MethodNotPossible(MethodNotAllowed):
    """The path exists, and takes other methods."""

    def __init__(self, method: str, path: str, possible: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not possible on {path[:200]}; use {' or '.join(possible)}")
        self.possible = possible


class NothingThere(LlamactlError):
    """No path that is let through to a backend."""

    code = "not_found"
    status = 404

    def __init__(self, path: str) -> None:
        super().__init__(
            f"there is nothing at {path[:200]} that an inference key opens; with a management key"
            " /api/v1/instances/{name}/proxy/… reaches every path of the backend"
        )


class NotLlamaCpp(InvalidRequest):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"instance {name} is no llama.cpp server, and /llama-cpp/ leads to those only; use"
            f" /v1/… with the model {name}"
        )


class NoWebUI(LlamactlError):
    """llama-server runs, but has no web UI, or no such file in it."""

    code = "not_found"
    status = 404

    def __init__(self, name: str, path: str) -> None:
        super().__init__(
            f"the llama.cpp server of {name} has no file {path[:200]} for browsers: it was started"
            " with no_webui, or built without its web UI, if that path is /"
        )


class BackendUnreachable(LlamactlError):
    """The backend runs, but did not answer, or not with HTTP."""

    code = "backend_unreachable"
    status = 502


class TooManyOpenFiles(LlamactlError):
    """It is we who can't connect, and not the backend's fault."""

    code = "too_many_open_files"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "llamactl has as many files and connections open as it may; raise its limit (ulimit"
            " -n), or server.web_processes",
            retry_after=1,
        )


class BackendStalled(LlamactlError):
    """The backend runs, and was silent for longer than it may be."""

    code = "backend_stalled"
    status = 504


class BackendBrokeOff(LlamactlError):
    """The backend ended in the middle of its answer."""

    code = "backend_broke_off"
    status = 502

    def __init__(self) -> None:
        super().__init__("The backend ended before the response was complete; see its log.")


class Unexpected(LlamactlError):
    """A defect of ours; the log has the traceback."""

    def __init__(self) -> None:
        super().__init__("llamactl failed on this request; its own log says why")


class StartNotAsked(DatabaseUnavailable):
    """A start could not be asked for because the database does not answer."""

    def __init__(self) -> None:
        super().__init__(
            "the instance is not running, and the database that a start is asked through does"
            " not answer; try again in a moment",
            retry_after=5,
        )
