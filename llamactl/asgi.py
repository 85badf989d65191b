"""The ASGI application: the proxy's paths to Channels consumers, the rest to Django."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llamactl.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

# These need the app registry, which the line above fills.
from llamactl.asgi_types import Application  # noqa: E402
from llamactl.config import current  # noqa: E402
from llamactl.cors import CrossOrigin  # noqa: E402
from llamactl.open_access import OpenAccessGuard  # noqa: E402
from llamactl.request_size import BoundedBody  # noqa: E402
from proxy.application import ProxyApplication, refuse  # noqa: E402


def build() -> Application:
    """The layers, outermost last: CORS, the guard where keys are switched off, the proxy."""
    config = current()
    layers: Application = ProxyApplication(BoundedBody(django_application))
    if not (config.auth.require_management_auth and config.auth.require_inference_auth):
        layers = OpenAccessGuard(
            layers,
            refuse,
            host=config.server.host,
            allowed_origins=config.server.allowed_origins,
        )
    return CrossOrigin(
        layers,
        allowed_origins=config.server.allowed_origins,
        allowed_headers=config.server.allowed_headers,
    )


application = build()
