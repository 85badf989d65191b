"""The OpenAPI document and its pages.

Each app's ``api/schema.py`` describes the app's operations with ``operation``. ``proxy.openapi``
describes the proxy's paths, which have no views.
"""

from __future__ import annotations

from llamactl.openapi.operations import EVENT_STREAM, PLAIN_TEXT, DocumentedResponse, operation

__all__ = ["EVENT_STREAM", "PLAIN_TEXT", "DocumentedResponse", "operation"]
