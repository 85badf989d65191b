"""The sandbox of a backend's documents on llamactl's own port, whatever their type."""

from __future__ import annotations

import pytest

from tests.support.wire import RawBackend, RawClient

MODEL = b'{"model":"demo"}'


@pytest.mark.parametrize(
    "types",
    [
        b"Content-Type: text/html\r\n",
        b"",
        # Of several types, and of a list in one, browsers take the last.
        b"Content-Type: application/json\r\nContent-Type: text/html\r\n",
        b"Content-Type: application/json,text/html\r\n",
        b"Content-Type: text/event-stream\r\nContent-Type: text/html\r\n",
        b"Content-Type: text/event-stream;,text/html\r\n",
    ],
)
async def test_a_document_is_in_a_sandbox_whatever_types_it_names(
    client: RawClient, backend: RawBackend, types: bytes
) -> None:
    backend.answers = [b"HTTP/1.1 200 OK\r\n" + types + b"Content-Length: 2\r\n\r\nok"]
    client.post(b"/v1/chat/completions", MODEL)
    answer = await client.answer()
    assert answer.values(b"content-security-policy") == [b"sandbox allow-scripts"]
