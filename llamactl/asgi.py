"""The ASGI application: the proxy's paths to Channels consumers, the rest to Django."""

from __future__ import annotations

import os
from typing import Any, cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llamactl.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

# These need the app registry, which the line above fills.
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware  # noqa: E402

from llamactl.config import current  # noqa: E402
from llamactl.core.asgi_types import Application  # noqa: E402
from llamactl.middleware.body_limit import BodyLimit  # noqa: E402
from llamactl.middleware.cors import CrossOrigin  # noqa: E402
from llamactl.middleware.origin_guard import OriginGuard  # noqa: E402
from llamactl.middleware.response_headers import ResponseHeaders  # noqa: E402
from proxy.asgi import ProxyApplication  # noqa: E402


def forwarded(application: Application) -> Application:
    """``application``, told what a proxy on this machine says of the client and its scheme."""
    return cast("Application", ProxyHeadersMiddleware(cast("Any", application)))


def build() -> Application:
    """The layers, innermost first: the proxy, the guard where keys are switched off, CORS, and
    the operator's own headers where there are any.

    Only Django asks who a request comes from, and whether by HTTPS; so it alone gets what a proxy
    in front of us says of that.
    """
    config = current()
    layers: Application = ProxyApplication(forwarded(BodyLimit(django_application)))
    if not (config.auth.require_management_auth and config.auth.require_inference_auth):
        layers = OriginGuard(
            layers,
            host=config.server.host,
            allowed_origins=config.server.allowed_origins,
        )
    layers = CrossOrigin(
        layers,
        allowed_origins=config.server.allowed_origins,
        allowed_headers=config.server.allowed_headers,
    )
    if config.server.response_headers:
        layers = ResponseHeaders(layers, config.server.response_headers)
    return layers


application = build()
