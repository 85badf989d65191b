"""ASGI extension of our server: an event for the disconnect of a WebSocket client.

``receive`` reports a disconnect only after all earlier messages, and each call reads on from the
client. The event reports the disconnect while the application takes no message.
"""

from __future__ import annotations

import asyncio

from llamactl.core.asgi_types import Scope

EXTENSION = "llamactl.disconnect_event"


def disconnect_event(scope: Scope) -> asyncio.Event:
    """Return the event of the disconnect. Other servers, and a shutdown, never set the event."""
    extension = (scope.get("extensions") or {}).get(EXTENSION)
    event: asyncio.Event = extension["event"] if extension else asyncio.Event()
    return event
