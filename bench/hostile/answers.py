"""Requests that get the answers of the hostile backend."""

from __future__ import annotations

from collections.abc import Iterator

from bench.hostile.backend import ANSWERS, SOCKETS
from bench.hostile.request import KEY, MANAGEMENT, Input, head, post

HANDSHAKE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_INSTANCE = b"/api/v1/instances/hostile/proxy/"


def hostile_answers() -> Iterator[Input]:
    """Each answer, by the instance proxy and by the web UI's path."""
    key = b"Authorization: Bearer " + MANAGEMENT
    for name in ANSWERS:
        path = name.encode()
        yield head(key, target=_INSTANCE + path, name=f"answer: {name}")
        yield head(key, target=b"/llama-cpp/hostile/" + path, name=f"web UI: {name}")
    yield head(key, target=b"/llama-cpp/hostile/", name="web UI: gzip bomb")
    for name in SOCKETS:
        target = _INSTANCE + name.encode()
        yield head(HANDSHAKE + key, target=target, name=f"answer: {name}")
    chat = b'{"model":"hostile"}'
    yield post(b"/v1/chat/completions", b"application/json", chat, name="answer", key=KEY)
