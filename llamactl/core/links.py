"""Links to llamactl itself, as clients reach it: below ``server.public_url``."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import urlsplit

from llamactl.config import current
from llamactl.core.asgi_types import Scope
from llamactl.core.backend_ui import came_by_ui_port
from llamactl.core.headers import header


class Locatable(Protocol):
    """A request that knows its own scheme and host: Django's."""

    def build_absolute_uri(self, location: str, /) -> str: ...


def public_path(path: str) -> str:
    """``/docs`` → ``/llm/docs`` with ``server.public_url: https://llm.example/llm/``."""
    return current().server.public_prefix + path


def backend_ui_prefix() -> str:
    """Path of ``server.backend_ui_url``, without a slash at its end."""
    return urlsplit(current().server.backend_ui_url).path


def prefix_of(scope: Scope) -> str:
    """Return the path below which the client of this request reaches llamactl's paths."""
    return backend_ui_prefix() if came_by_ui_port(scope) else current().server.public_prefix


def public_base_url(request: Locatable) -> str:
    """Return ``server.public_url``, else scheme and host of ``request``; no slash at the end."""
    return current().server.public_url or request.build_absolute_uri("/").rstrip("/")


def base_url_of(scope: Scope) -> str:
    """``public_base_url`` of an ASGI request."""
    if public_url := current().server.public_url:
        return public_url
    host = header(scope["headers"], b"host") or b"localhost"
    return f"{scope.get('scheme', 'http')}://{host.decode('latin-1')[:200]}"
