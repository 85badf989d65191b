"""The application of the port of the backends' pages."""

from __future__ import annotations

from llamactl.core.asgi_types import Application, Receive, Scope, Send
from llamactl.core.backend_ui import PREFIX, NotOnThisPort, mark_ui_port
from llamactl.core.error_response import send_error


class BackendUiOnly:
    """Passes the paths of the backends' pages on, and answers nothing else."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            if not _is_path_of_backends(scope):
                await send_error(scope, send, NotOnThisPort())
                return
            mark_ui_port(scope)
        await self._application(scope, receive, send)


def _is_path_of_backends(scope: Scope) -> bool:
    """Whether the path is below ``/llama-cpp/``, as sent and as decoded."""
    raw_path: bytes = scope.get("raw_path") or b""
    return scope["path"].startswith(PREFIX) and raw_path.startswith(PREFIX.encode())
