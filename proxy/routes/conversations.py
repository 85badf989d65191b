"""Ids of conversations, made the key's own on their way to llama-server.

llama-server keeps a response under the client's ``X-Conversation-Id``: whoever knows the id reads
(``GET /v1/stream?conv_id=``), ends and lists (``/v1/streams/lookup``) the response. Ids as ``c1``
are easily guessed, so each id gets a prefix that only requests with the same key get.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from llamactl.core.asgi_types import Message, Send
from llamactl.core.errors import InvalidRequest
from proxy.headers import Pairs
from proxy.table.table import KeyRule
from proxy.upstream import BrokeOff

HEADER = b"x-conversation-id"
LOOKUP_PATH = "/v1/streams/lookup"
MAX_LOOKUP_BYTES = 32 * 1024
MAX_ANSWER_BYTES = 2**20


def prefix_of(rule: KeyRule | None) -> bytes:
    """The prefix of a key; empty where no key is required, so that all clients are the same."""
    if rule is None or not rule.digest:
        return b""
    # A hash of the hash: the prefix must tell a backend, or its log, nothing about the key.
    return sha256(b"conversations of " + rule.digest).hexdigest()[:24].encode() + b"-"


def with_own_header(headers: Pairs, rule: KeyRule | None) -> Pairs:
    """The request's headers, with the key's own conversation id."""
    for name, _ in headers:
        if name == HEADER:
            prefix = prefix_of(rule)
            return [
                (name, prefix + value) if name == HEADER else (name, value)
                for name, value in headers
            ]
    return headers


def with_own_query(query: bytes, rule: KeyRule | None) -> bytes:
    """The query of ``/v1/stream``, with the key's own conversation id."""
    prefix = prefix_of(rule)
    pairs = []
    for pair in query.split(b"&"):
        name, equals, value = pair.partition(b"=")
        is_id = equals and unquote_to_bytes(name.replace(b"+", b" ")) == b"conv_id"
        pairs.append(b"conv_id=" + prefix + value if is_id else pair)
    return b"&".join(pairs)


def with_own_ids(body: object, rule: KeyRule | None) -> bytes:
    """The body of a lookup, with the key's own ids. Raises InvalidRequest (400)."""
    document: Any = None
    if isinstance(body, bytes) and len(body) <= MAX_LOOKUP_BYTES:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            document = None
    ids = document.get("conversation_ids") if isinstance(document, dict) else None
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise InvalidRequest(
            "Invalid request body: conversation_ids must be a list of strings, in a JSON object of"
            f" at most {MAX_LOOKUP_BYTES} bytes"
        )
    prefix = prefix_of(rule).decode()
    return orjson.dumps({**document, "conversation_ids": [prefix + each for each in ids]})


def without_prefix(send: Send, rule: KeyRule | None) -> Send:
    """``send`` for the answer to a lookup, with the ids as the client knows them."""
    return _PrefixRemoval(send, prefix_of(rule)) if prefix_of(rule) else send


class _PrefixRemoval:
    """An ASGI ``send`` that gathers a small response and removes a prefix from it."""

    def __init__(self, send: Send, prefix: bytes) -> None:
        self._send = send
        self._prefix = prefix
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if len(self._body) > MAX_ANSWER_BYTES:
            raise BrokeOff(f"the answer to a lookup has more than {MAX_ANSWER_BYTES} bytes")
        if message.get("more_body") or self._start is None:
            return
        body = bytes(self._body.replace(b'"' + self._prefix, b'"'))
        headers = [pair for pair in self._start["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
