from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.core.asgi import get_asgi_application

from llamactl.middleware.body_limit import MAX_FORM_BYTES, MAX_QUERY_BYTES, BodyLimit
from tests.support.asgi import AsgiRequest


async def reader(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads the whole body first, and gives up as Django does."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


@pytest.mark.parametrize(("size", "status"), [(0, 200), (100, 200), (101, 413)])
async def test_a_body_over_the_limit_is_refused(size: int, status: int) -> None:
    answer = await AsgiRequest(BodyLimit(reader, 100), "/x", body=b"x" * size).finish()
    assert answer.status == status
    if status == 413:
        assert answer.json()["error"] == "invalid_request"


async def test_a_large_content_length_is_refused_before_the_body() -> None:
    exchange = AsgiRequest(
        BodyLimit(reader, 100), "/x", headers=[(b"content-length", b"9" * 30)], body=b""
    )
    assert (await exchange.finish()).status == 413


async def test_an_endless_body_is_refused_at_the_limit() -> None:
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x" * 30, "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/x", "headers": []}
    await asyncio.wait_for(BodyLimit(reader, 100)(scope, receive, send), 5)
    assert sent[0]["status"] == 413
    assert asked == 4


async def test_django_drops_the_body_of_a_refused_request() -> None:
    # It should leave no temporary file open: warnings are errors here.
    application = BodyLimit(get_asgi_application(), 100)
    answer = await AsgiRequest(application, "/api/v1/instances/x", body=b"x" * 200).finish()
    assert answer.status == 413


async def test_the_lifespan_passes() -> None:
    seen = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive))

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    await BodyLimit(application)({"type": "lifespan"}, receive, receive)  # type: ignore[arg-type]
    assert seen == [({"type": "lifespan"}, receive)]


class DrippingBody:
    """A request whose body comes in pieces, and never to its end."""

    def __init__(self, application: BodyLimit, *pieces: bytes) -> None:
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Any] = []
        for piece in pieces:
            self.put(piece)
        scope = {"type": "http", "path": "/admin/login/", "headers": []}
        self.task = asyncio.ensure_future(application(scope, self._inbox.get, self._send))

    def put(self, piece: bytes, *, more_body: bool = True) -> None:
        self._inbox.put_nowait({"type": "http.request", "body": piece, "more_body": more_body})

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


async def test_the_largest_of_too_many_incomplete_bodies_makes_room() -> None:
    limit = BodyLimit(reader, 100, 150)
    small, large = DrippingBody(limit, b"x" * 60), DrippingBody(limit, b"x" * 80)
    await asyncio.sleep(0)
    # It should be refused although it sends nothing at this moment.
    last = DrippingBody(limit, b"x" * 20)
    async with asyncio.timeout(10):
        await large.task
    assert large.sent[0]["status"] == 503
    assert (b"retry-after", b"5") in large.sent[0]["headers"]
    assert not small.task.done()
    assert not last.task.done()
    # A short form should still be answered.
    answer = await AsgiRequest(limit, "/admin/login/", body=b"x" * 50).finish()
    assert answer.body == b"50"
    for each in (small, last):
        each.task.cancel()
        await asyncio.wait((each.task,))


async def test_the_body_that_exceeds_the_sum_may_itself_be_the_largest() -> None:
    limit = BodyLimit(reader, 1000, 150)
    small, large = DrippingBody(limit, b"x" * 60), DrippingBody(limit, b"x" * 80, b"x" * 20)
    async with asyncio.timeout(10):
        await large.task
    assert large.sent[0]["status"] == 503
    assert not small.task.done()
    small.task.cancel()
    await asyncio.wait((small.task,))
    assert small.task.cancelled()


async def test_a_body_counts_until_its_request_is_answered() -> None:
    is_answered = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await is_answered.wait()
        await reader(scope, receive, send)

    limit = BodyLimit(slow, 100, 150)
    complete = DrippingBody(limit, b"x" * 50)
    complete.put(b"x" * 50, more_body=False)
    await asyncio.sleep(0)
    late = DrippingBody(limit, b"x" * 60)
    async with asyncio.timeout(10):
        await late.task
        assert late.sent[0]["status"] == 503
        is_answered.set()
        await complete.task
        assert complete.sent[1]["body"] == b"100"
        late = DrippingBody(limit, b"x" * 60)
        late.put(b"", more_body=False)
        await late.task
    assert late.sent[0]["status"] == 200


async def test_a_body_in_pieces_is_received_whole() -> None:
    request = DrippingBody(BodyLimit(reader), b"x", b"y" * 20_000)
    request.put(b"z", more_body=False)
    async with asyncio.timeout(10):
        await request.task
    assert request.sent[1]["body"] == b"20002"


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/admin/instances/instance/", MAX_QUERY_BYTES, 200),
        ("/admin/instances/instance/", MAX_QUERY_BYTES + 1, 414),
        ("/admin/login/", MAX_QUERY_BYTES + 1, 414),
        ("/api/v1/instances/x", MAX_QUERY_BYTES + 1, 200),
    ],
)
async def test_the_query_of_a_page_is_bounded(path: str, size: int, status: int) -> None:
    request = AsgiRequest(BodyLimit(reader), path, method="GET", body=b"", query=b"q" * size)
    assert (await request.finish()).status == status


@pytest.mark.parametrize("path", ["/api/v1/instances/x", "/admin/login/"])
async def test_a_packed_body_is_refused(path: str) -> None:
    headers = [(b"content-encoding", b"gzip"), (b"content-length", b"3")]
    answer = await AsgiRequest(BodyLimit(reader), path, body=b"abc", headers=headers).finish()
    assert answer.status == 415
    assert answer.header("accept-encoding") == "identity"


async def test_a_content_encoding_without_a_body_does_no_harm() -> None:
    headers = [(b"content-encoding", b"gzip"), (b"content-length", b"0")]
    answer = await AsgiRequest(BodyLimit(reader), "/x", method="GET", headers=headers).finish()
    assert answer.status == 200


@pytest.mark.parametrize(
    ("path", "root_path", "status"),
    [
        ("/admin/login/", "", 413),
        ("/x", "", 413),
        ("/llm/admin/login/", "/llm", 413),
        ("/api/v1/instances/x", "", 200),
        ("/llm/api/v1/instances/x", "/llm", 200),
    ],
)
async def test_forms_have_a_lower_limit_than_the_api(
    path: str, root_path: str, status: int
) -> None:
    async def at_root(scope: Any, receive: Any, send: Any) -> None:
        await BodyLimit(reader)({**scope, "root_path": root_path}, receive, send)

    answer = await AsgiRequest(at_root, path, body=b"x" * (MAX_FORM_BYTES + 1)).finish()
    assert answer.status == status
    answer = await AsgiRequest(at_root, path, body=b"x" * MAX_FORM_BYTES).finish()
    assert answer.status == 200
