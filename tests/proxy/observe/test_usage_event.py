"""Streams of vLLM and mlx_lm, which tell their tokens only if they are asked.

The events are as vLLM 0.11 writes them (``vllm/entrypoints/openai/serving_chat.py``: one data line
for each chunk, the usage chunk last before ``[DONE]``); it was not run.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from llamactl.core.turns import Turns
from proxy.asgi import ProxyApplication
from proxy.body.json_model import PARSED_BYTES
from proxy.body.stream_usage import with_usage
from proxy.exchange import Exchange
from proxy.observe.usage_event import MAX_HELD_BYTES, UsageEventFilter
from tests.proxy.conftest import ALICE, Backend, TableGateway, make_target
from tests.support.asgi import AsgiRequest

HEAD = '"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m"'


def event(rest: str) -> bytes:
    return f"data: {{{HEAD},{rest}}}\n\n".encode()


ROLE = event('"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]')
TEXT = event('"choices":[{"index":0,"delta":{"content":"a \\"usage\\": {} \\"choices\\":[]"}}]')
FINISH = event('"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],"usage":null')
USAGE = event('"choices":[],"usage":{"prompt_tokens":7,"total_tokens":10,"completion_tokens":3}')
DONE = b"data: [DONE]\n\n"
UNASKED = ROLE + TEXT * 3 + FINISH + DONE
ASKED = ROLE + TEXT * 3 + FINISH + USAGE + DONE


def passed(stream: bytes, size: int) -> bytes:
    hidden = UsageEventFilter()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    return b"".join(
        hidden.feed(piece, is_last=at == len(pieces) - 1) for at, piece in enumerate(pieces)
    )


@pytest.mark.parametrize("size", [1, 2, 7, 100, 500, 10**6])
def test_client_gets_every_byte_but_those_of_the_usage_event(size: int) -> None:
    assert passed(ASKED, size) == UNASKED
    assert passed(UNASKED, size) == UNASKED


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"data",
        b"\n\n",
        b"data: {\n\n",
        b": ping\n\n" + DONE,
        b'data: {"usage" "choices"\n\n',
        b"data: " + b"x" * (3 * MAX_HELD_BYTES) + b"\n\n" + DONE,
    ],
)
@pytest.mark.parametrize("size", [3, 5000])
def test_anything_else_goes_through_as_it_is(stream: bytes, size: int) -> None:
    assert passed(stream, size) == stream


def test_whole_event_is_not_held_back() -> None:
    hidden = UsageEventFilter()
    for _ in range(3):
        assert hidden.feed(TEXT, is_last=False) == TEXT
    assert hidden.feed(TEXT + b"data: {", is_last=False) == TEXT


@pytest.mark.parametrize("pad", [0, PARSED_BYTES])
@pytest.mark.parametrize(
    ("given", "options"),
    [
        ('"stream":true', {"include_usage": True}),
        ('"stream":true,"stream_options":null', {"include_usage": True}),
        ('"stream_options":{"include_usage":false},"stream":true', {"include_usage": True}),
        (
            '"stream":true, "stream_options" : {"continuous_usage_stats":true}',
            {"continuous_usage_stats": True, "include_usage": True},
        ),
        ('"stream":true,"stream_options":{"include_usage":true}', None),
        ('"stream":false', None),
        ('"stream":"true"', None),
        ('"stream":true,"stream_options":[1]', None),
        ('"stream":true,"stream":false', None),
    ],
)
async def test_usage_is_asked_for_where_the_client_does_not(
    given: str, options: Any, pad: int
) -> None:
    body = f'{{"model":"m","seed":18446744073709551617,"pad":"{"x" * pad}",{given} }}'.encode()
    asking = await with_usage(body, Turns())
    if options is None:
        assert asking is None
        return
    assert asking is not None
    assert json.loads(asking)["stream_options"] == options
    # It should leave every other byte as it was.
    assert b'"seed":18446744073709551617' in asking
    assert asking.count(b"stream_options") == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"stream":true', b'{"stream":true,}'])
async def test_body_that_is_no_document_is_left_to_the_backend(body: bytes) -> None:
    assert await with_usage(body, Turns()) is None


async def streaming(request: web.Request) -> web.StreamResponse:
    """A vLLM: the usage event comes only if the request asks for it."""
    document = await request.json()
    options = document.get("stream_options") or {}
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for part in (ROLE, TEXT, TEXT, TEXT, FINISH):
        await response.write(part)
        await asyncio.sleep(0)
    if options.get("include_usage"):
        await response.write(USAGE)
    await response.write(DONE)
    return response


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("is_asked", [True, False])
async def test_tokens_are_exact_and_the_client_sees_what_it_asked_for(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, path: str, *, is_asked: bool
) -> None:
    ended: list[Exchange] = []
    gateway.observers.append(ended.append)
    gateway.lay(make_target(backend.origin, asks_for_usage=True))
    backend.handler = streaming
    document: dict[str, object] = {"model": "demo", "stream": True}
    if is_asked:
        document["stream_options"] = {"include_usage": True}
    response = await AsgiRequest(app, path, key=ALICE, json=document).finish()
    assert response.body == (ASKED if is_asked else UNASKED)
    [exchange] = ended
    assert exchange.tokens == (7, 0, 3, 0, 0, False)


async def test_other_backends_and_paths_get_the_body_as_it_came(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    for path, asks in (("/v1/chat/completions", False), ("/v1/messages", True)):
        gateway.lay(make_target(backend.origin, asks_for_usage=asks))
        await AsgiRequest(app, path, key=ALICE, json={"model": "demo", "stream": True}).finish()
        assert b"include_usage" not in backend.bodies[-1]
