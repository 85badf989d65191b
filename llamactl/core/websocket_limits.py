"""Size limit of a WebSocket message, in both directions.

A message is assembled in memory before it is forwarded. The server applies the limit to messages
of clients, the proxy to messages of backends.
"""

from __future__ import annotations

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Enough for a picture, or half a minute of raw audio, as base64."""

UTF8_EXTENSION = "llamactl.utf8"
"""The extension in a scope of a server that gives and takes large texts as ``utf8``."""

DECODED_BYTES = 64 * 1024
"""A larger text goes through as UTF-8, in ``utf8`` of a message instead of ``text``: one character
outside of the basic plane makes a ``str`` of four times the size, and decoding takes 30 ms."""
