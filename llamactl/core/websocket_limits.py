"""Size limit of a WebSocket message, in both directions.

A message is assembled in memory before it is forwarded. The server applies the limit to messages
of clients, the proxy to messages of backends.
"""

from __future__ import annotations

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Enough for a picture, or half a minute of raw audio, as base64."""
