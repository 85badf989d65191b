"""The ASGI application: the proxy's paths go to Channels consumers, all others to Django."""

from __future__ import annotations

import logging
import os
from typing import Any, cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llamactl.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

# These imports need the app registry, which the line above fills.
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware  # noqa: E402

from llamactl.config import current  # noqa: E402
from llamactl.config.announcement import announce_warnings  # noqa: E402
from llamactl.console.live import consumer  # noqa: E402
from llamactl.console.live.hub import LiveHub  # noqa: E402
from llamactl.console.live.viewer import watch_logouts  # noqa: E402
from llamactl.core.asgi_types import Application  # noqa: E402
from llamactl.core.change_feed import process_feed  # noqa: E402
from llamactl.core.form_request import FormRequest  # noqa: E402
from llamactl.middleware.body_limit import BodyLimit  # noqa: E402
from llamactl.middleware.cors import CrossOrigin  # noqa: E402
from llamactl.middleware.management_headers import ManagementHeaders  # noqa: E402
from llamactl.middleware.origin_guard import OriginGuard  # noqa: E402
from llamactl.middleware.public_prefix import (  # noqa: E402
    PrefixAddition,
    PrefixRemoval,
    can_remove,
)
from llamactl.middleware.request_ids import RequestIds  # noqa: E402
from llamactl.middleware.response_headers import ResponseHeaders  # noqa: E402
from llamactl.middleware.secure_cookies import SecureCookies  # noqa: E402
from proxy.asgi import ProxyApplication  # noqa: E402
from proxy.gateway import Gateway  # noqa: E402

logger = logging.getLogger(__name__)
django_application.request_class = FormRequest


def with_forwarded_headers(application: Application) -> Application:
    """Give ``application`` the client and scheme of a reverse proxy on this machine."""
    return cast("Application", ProxyHeadersMiddleware(cast("Any", application)))


def build() -> Application:
    """Build the layers, innermost first: proxy, origin guard, CORS, operator's headers.

    The origin guard is for keys that are switched off. Django alone uses the client's address and
    scheme, so Django alone gets the ``X-Forwarded-…`` headers of a reverse proxy.

    With ``server.public_url`` the prefix of its path is removed first, and added for Django.
    """
    config = current()
    prefix = config.server.public_prefix
    django: Application = SecureCookies(BodyLimit(django_application))
    if prefix:
        django = PrefixAddition(django, prefix)
    django = RequestIds(ManagementHeaders(django))
    announce_warnings(config, logger.warning)
    watch_logouts()
    stream = consumer.stream_application(
        LiveHub(process_feed), public_origin=config.server.public_origin
    )
    layers: Application = ProxyApplication(
        with_forwarded_headers(django), Gateway(process_feed), {consumer.PATH: stream}
    )
    if not (config.auth.require_management_auth and config.auth.require_inference_auth):
        layers = OriginGuard(
            layers,
            host=config.server.host,
            allowed_origins=config.server.allowed_origins,
            public_origin=config.server.public_origin,
            ui_origin=config.server.backend_ui_origin,
        )
    layers = CrossOrigin(
        layers,
        allowed_origins=config.server.allowed_origins,
        allowed_headers=config.server.allowed_headers,
    )
    if config.server.response_headers:
        layers = ResponseHeaders(layers, config.server.response_headers)
    return PrefixRemoval(layers, prefix) if can_remove(prefix) else layers


application = build()
