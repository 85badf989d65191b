"""Refusals of the proxy; ``llamactl.core.error_format`` renders them."""

from __future__ import annotations

from llamactl.core.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    InvalidRequest,
    LlamactlError,
    PathNotFound,
    PermissionDenied,
)


class InstanceNotPermitted(PermissionDenied):
    """An instance that the request's key has no permission for."""

    def __init__(self) -> None:
        super().__init__("permission denied: key does not have access to this instance")


class ModelNotFound(LlamactlError):
    """A model name without an instance; the code is OpenAI's."""

    code = "model_not_found"
    status = 404
    param = "model"

    def __init__(self, model: str, why: str = "no instance has that name") -> None:
        super().__init__(
            f"The model '{model[:100]}' does not exist: {why}. GET /v1/models lists the models"
            " that this key may use."
        )


class ModelNotLoaded(LlamactlError):
    """A model that is not ready, for a request that must not load it.

    Status and text are those of llama.cpp's router, whose clients look for them.
    """

    code = "model_not_loaded"
    status = 400
    param = "model"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"model is not loaded: instance {name} is not ready, and this request starts nothing;"
            " POST /models/load loads it, and so does a call without autoload=false"
        )


class ModelStateUnchanged(InvalidRequest):
    """A load of a running model, or an unload of a stopped model; the texts are llama.cpp's."""

    param = "model"

    def __init__(self, *, is_running: bool) -> None:
        super().__init__(
            "model is already running; GET /models shows whether it is loaded"
            if is_running
            else "model is not running; GET /models shows its status"
        )


class ControlNotPermitted(PermissionDenied):
    """A load or an unload with a key that has no right to it."""

    def __init__(self, path: str, right: str) -> None:
        super().__init__(
            f"permission denied: POST {path} needs a key with {right} for the instance, or a"
            " management key"
        )


class NoProperties(InvalidRequest):
    """``/props`` of an instance that is no llama.cpp server."""

    param = "model"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"instance {name} is no llama.cpp server and has no /props; GET /v1/models/{name} says"
            " what its model can do"
        )


class KeyNotCompared(LlamactlError):
    """A key that waits to be compared with the keys imported from the Go llamactl."""

    code = "key_not_compared"
    status = 503

    def __init__(self, retry_after: float) -> None:
        super().__init__(
            "this key is being compared with the keys imported from the Go llamactl, which takes"
            " time once for each key; try again in a moment",
            retry_after=retry_after,
        )


class RequestTooLarge(BodyTooLarge):
    """A request body beyond ``server.max_body_mib``; the code is Anthropic's."""

    code = "request_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The request body is larger than {limit} bytes; send less, or raise"
            " server.max_body_mib"
        )


class PathNotExposed(PathNotFound):
    """A path that inference keys may not reach, or that no backend has."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path[:200]} is not a path for inference keys; a management key reaches every path of"
            " the backend, below /api/v1/instances/{name}/proxy/"
        )


class PathNotServed(PathNotFound):
    """A path that the program of a stopped instance is not known to have: no reason to start it."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(
            f"the program of {name} has no {path[:200]} that llamactl knows of, and {name} does not"
            " run, so it is not started for this request; once it runs it gets every path"
        )


class NotLlamaCpp(InvalidRequest):
    """A request below ``/llama-cpp/`` for an instance of another backend."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"instance {name} is no llama.cpp server, and /llama-cpp/ serves those only; use"
            f" /v1/… with the model {name}"
        )


class NoWebUI(PathNotFound):
    """A running llama-server without a web UI, or without the requested file of it."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(
            f"the llama.cpp server of {name} has no file {path[:200]} for browsers: it was started"
            " with no_webui, or built without its web UI, if that path is /"
        )


class BackendFailed(LlamactlError):
    """A running backend without a response, or without the end of one."""


class BackendUnreachable(BackendFailed):
    """A running backend that did not answer, or did not answer with HTTP."""

    code = "backend_unreachable"
    status = 502


class ForeignRedirect(BackendFailed):
    """A redirect of a backend to another host, or to a path of llamactl itself."""

    code = "foreign_redirect"
    status = 502

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the backend of {name} redirects to an address that is not its own; llamactl passes no"
            " such redirect on, because clients would follow it with their prompt and key"
        )


class TooManyOpenFiles(LlamactlError):
    """A connection to the backend that failed at llamactl's own limit of open files."""

    code = "too_many_open_files"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "llamactl has reached its limit of open files and connections; raise the limit (ulimit"
            " -n), or server.web_processes",
            retry_after=1,
        )


class BackendStalled(BackendFailed):
    """A running backend that sent nothing for longer than its time limit."""

    code = "backend_stalled"
    status = 504


class BackendBrokeOff(BackendFailed):
    """A backend that ended before its response was complete."""

    code = "backend_broke_off"
    status = 502

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}: the response is not complete")


class ResponseStopped(BackendFailed):
    """A response that ended with its backend, at an operator's stop."""

    code = "stopped_by_operator"
    status = 503

    def __init__(self, name: str) -> None:
        super().__init__(
            f"instance {name} was stopped by an operator: the response is not complete"
        )


class RequestCancelled(LlamactlError):
    """A request that an operator has cancelled; without Retry-After, so that none is repeated."""

    code = "request_cancelled"
    status = 503

    def __init__(self) -> None:
        super().__init__("an operator cancelled this request")


class StartNotRequested(DatabaseUnavailable):
    """A start that could not be requested because the database does not answer."""

    def __init__(self) -> None:
        super().__init__(
            "the instance is not running, and can't be started while the database does not answer;"
            " try again in a moment"
        )
