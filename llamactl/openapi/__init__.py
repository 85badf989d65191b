"""What is said about our HTTP interface: the OpenAPI document, and the pages that show it.

The apps' ``api/schema.py`` describe their own operations with ``operation``; what the proxy
answers, which has no views, is described in ``proxied/``.
"""

from __future__ import annotations

from llamactl.openapi.operations import EVENT_STREAM, PLAIN_TEXT, DocumentedResponse, operation

__all__ = ["EVENT_STREAM", "PLAIN_TEXT", "DocumentedResponse", "operation"]
