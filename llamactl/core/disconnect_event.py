"""How does an application learn that a WebSocket's client has left, while it takes no message?

``receive`` tells it behind the messages that came before, and reads on for whoever asks. So our
server has an extension of ASGI, which says only this.
"""

from __future__ import annotations

import asyncio

from llamactl.core.asgi_types import Scope

EXTENSION = "llamactl.disconnect_event"


def disconnect_event(scope: Scope) -> asyncio.Event:
    """Set once the client has left; never by a server that is not ours, or that shuts down."""
    extension = (scope.get("extensions") or {}).get(EXTENSION)
    event: asyncio.Event = extension["event"] if extension else asyncio.Event()
    return event
