"""The WSGI application, for tools without ASGI: admin and management API, without the proxy."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llamactl.settings")

application = get_wsgi_application()
