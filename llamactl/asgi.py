"""The ASGI application: the proxy's paths to Channels consumers, the rest to Django."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llamactl.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

# These need the app registry, which the line above fills.
from llamactl.config import current  # noqa: E402
from llamactl.cors import CrossOrigin  # noqa: E402
from llamactl.request_size import BoundedBody  # noqa: E402
from proxy.application import ProxyApplication  # noqa: E402

server = current().server

application: Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
] = CrossOrigin(
    ProxyApplication(BoundedBody(django_application)),
    allowed_origins=server.allowed_origins,
    allowed_headers=server.allowed_headers,
)
