"""The bytes of the fake backend's responses; repeated ones are cached."""

from __future__ import annotations

import functools
import json
from typing import Final

STATUS_TEXTS: Final = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    404: b"Not Found",
    411: b"Length Required",
    503: b"Service Unavailable",
}
PIECE: Final = " token"


def http_response(status: int, body: bytes) -> bytes:
    """A whole HTTP/1.1 response with a JSON body; the connection stays open."""
    head = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, STATUS_TEXTS.get(status, b"Other"), len(body)) + body


def http_chunk(payload: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def error(status: int, message: str) -> bytes:
    document = {"error": {"code": status, "message": message}}
    return http_response(status, json.dumps(document, separators=(",", ":")).encode())


HEALTHY: Final = http_response(200, b'{"status":"ok"}')
LOADING: Final = error(503, "Loading model")
NOT_FOUND: Final = error(404, "File Not Found")
NOT_FOUND_HEAD: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
BAD_REQUEST: Final = error(400, "bad request")
UNAUTHORIZED: Final = error(401, "Invalid API Key")
LENGTH_REQUIRED: Final = error(411, "send Content-Length")
STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
STREAM_END: Final = http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@functools.lru_cache(maxsize=64)
def completion(model: str, text: str, size: int) -> bytes:
    """The response that is not streamed, its text padded until the JSON has ``size`` bytes."""
    message = {"role": "assistant", "content": text}
    document: dict[str, object] = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1700000000,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40},
    }
    missing = size - len(json.dumps(document, separators=(",", ":")))
    if missing > 0:
        message["content"] += (PIECE * (missing // len(PIECE) + 1))[:missing]
    return http_response(200, json.dumps(document, separators=(",", ":")).encode())


@functools.lru_cache(maxsize=64)
def token_event(model: str, piece: str) -> bytes:
    """One token of a stream as a server-sent event."""
    choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
    document = {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": model,
        "choices": [choice],
    }
    return http_chunk(b"data: %b\n\n" % json.dumps(document, separators=(",", ":")).encode())


@functools.lru_cache(maxsize=4)
def models(alias: str) -> bytes:
    """The response to ``GET /v1/models``."""
    entry = {"id": alias, "object": "model", "created": 1700000000, "owned_by": "fake"}
    return http_response(200, json.dumps({"object": "list", "data": [entry]}).encode())


def hostile_page(path: str) -> bytes:
    """A web UI that tries to act on the origin of llamactl."""
    with open(path, "rb") as file:
        page = file.read()
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n"
        b'Set-Cookie: llamactl_session=evil; Path=/\r\nClear-Site-Data: "*"\r\n'
        b"Service-Worker-Allowed: /\r\nAccess-Control-Allow-Origin: *\r\n\r\n"
    )
    return head % len(page) + page


def transcription(content_type: bytes, body: bytes) -> bytes:
    """The response to a form: ``text`` names its fields, ``parts`` tells each of them.

    A file is told by its SHA-256, so that a test can compare every byte.
    """
    import hashlib
    import re

    boundary = content_type.partition(b"boundary=")[2].strip(b'"')
    parts = []
    # The first piece precedes the first boundary, the last follows the end.
    for piece in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        part = dict(re.findall(r'\b(name|filename)="([^"]*)"', head.decode()))
        is_file = "filename" in part
        part["value"] = hashlib.sha256(content).hexdigest() if is_file else content.decode()
        parts.append(part)
    text = " ".join(part["name"] for part in parts)
    return http_response(200, json.dumps({"text": text, "parts": parts}).encode())
