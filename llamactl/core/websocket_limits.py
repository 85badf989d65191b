"""How large may a WebSocket message be, in either direction?

One is put together in memory before it is passed on, as large as it is. Both sides look here: the
server for what clients send, the proxy for what backends do.
"""

from __future__ import annotations

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""A picture or half a minute of raw audio as base64; longer things are sent in pieces anyway."""
