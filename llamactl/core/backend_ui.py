"""The port of the backends' own pages, which keeps them out of llamactl's origin.

A page of a backend is a program of its author. On llamactl's port it would have llamactl's origin:
it could read the management key that ``/docs`` holds, and post the admin's forms. So browsers are
sent to a port that serves the paths below ``/llama-cpp/NAME/`` alone. Everywhere else a backend's
documents are in a sandbox, where a browser gives them an origin of their own and no storage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping
from typing import Any

from llamactl.config import current
from llamactl.core.asgi_types import Scope
from llamactl.core.errors import PathNotFound
from llamactl.core.headers import header

PREFIX = "/llama-cpp/"
"""The paths of the port."""

SANDBOX = (b"content-security-policy", b"sandbox allow-scripts")
"""The header of a backend's document on llamactl's own port."""

_KEY = "llamactl.backend_ui_port"
_MARK = "llamactl.came_by_ui_port"
_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OF_REVERSE_PROXIES = frozenset(
    {b"forwarded", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)
"""Headers that browsers, and the proxies that browsers are configured with, do not send."""


class NotOnThisPort(PathNotFound):
    """A path of llamactl itself on the port of the backends' pages."""

    def __init__(self) -> None:
        super().__init__(
            "this port serves the backends' own pages alone, below /llama-cpp/NAME/; for everything"
            " else use llamactl's own port (server.port)"
        )


def announce_port(state: MutableMapping[str, Any], port: int) -> None:
    """Say in the server's lifespan state that it listens on the port."""
    state[_KEY] = port


def came_by_ui_port(scope: Scope) -> bool:
    """Whether the request came by the port of the backends' pages."""
    return _MARK in scope


def mark_ui_port(scope: Scope) -> None:
    """Mark a request that came by the port."""
    scope[_MARK] = True


def ui_location(scope: Scope, path_and_query: str) -> str | None:
    """The URL for a browser that opens a backend's page on llamactl's own port.

    ``None`` for other clients, and where no such URL is known: behind a reverse proxy without
    ``server.backend_ui_url``.
    """
    port = (scope.get("state") or {}).get(_KEY)
    if port is None or came_by_ui_port(scope) or not _is_navigation(scope["headers"]):
        return None
    server = current().server
    if server.backend_ui_url:
        return server.backend_ui_url + path_and_query
    if server.public_url or _is_by_reverse_proxy(scope):
        return None
    host = header(scope["headers"], b"host") or b""
    match = _HOST.fullmatch(host.decode("latin-1"))
    scheme = scope.get("scheme", "http")
    # Browsers leave the scheme's own port out. Another port is that of a reverse proxy, or of a
    # container.
    if match is None or int(match[2] or _DEFAULT_PORTS.get(scheme, 0)) != scope["server"][1]:
        return None
    return f"{scheme}://{match[1]}:{port}{path_and_query}"


def _is_by_reverse_proxy(scope: Scope) -> bool:
    """Whether a reverse proxy has sent the request: the other ports of the host are unknown.

    nginx speaks HTTP/1.0 and sends the name of its upstream as Host, unless it is told otherwise.
    """
    if scope.get("http_version") == "1.0":
        return True
    return any(name in _OF_REVERSE_PROXIES for name, _ in scope["headers"])


def _is_navigation(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser opens a page, in a window or a frame (Fetch Metadata, section 2.2).

    Browsers send ``Sec-Fetch-Mode`` to https and to loopback alone. On any other http address a
    navigation is told by the ``Accept`` that all browsers begin with ``text/html``.
    """
    mode = header(headers, b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate"
    return (header(headers, b"accept") or b"").lower().startswith(b"text/html")
