"""Uploads: large request bodies that are streamed to the backend."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest
import zstandard

from instances.states import Status
from proxy.body.body import WHOLE_BYTES
from tests.proxy.conftest import BOB, TableGateway
from tests.support.until import until_async
from tests.support.wire import OK, RawBackend, RawClient, Session, read_message

CHAT = b"/v1/chat/completions"
MODEL = b'{"model":"demo"}'
ANY = b"/api/v1/instances/demo/proxy"
SIZE = 8 * 2**20
FORM = b"Content-Type: multipart/form-data; boundary=B"
FIELD = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n'
FILE = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
AUDIO = b"/v1/audio/transcriptions"


async def test_large_upload_goes_through_as_it_comes(
    client: RawClient, backend: RawBackend
) -> None:
    came = asyncio.Event()
    go_on = asyncio.Event()

    async def play(session: Session) -> None:
        head = await session.reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: %d" % SIZE in head
        await session.reader.readexactly(1000)
        came.set()
        await go_on.wait()
        rest = await session.reader.readexactly(SIZE - 1000)
        await session.send(OK.replace(b"{}", b"%02d" % (len(set(rest)))))

    backend.script = play
    client.ask(b"POST " + ANY + b"/files", b"Content-Length: %d" % SIZE)
    client.send(b"x" * (SIZE // 2))
    # It should be at the backend before the client has sent it all.
    await asyncio.wait_for(came.wait(), 10)
    go_on.set()
    client.send(b"x" * (SIZE // 2))
    assert (await client.answer()).body == b"01"


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


JSON = b'{"model":"demo","x":"' + b"x" * (2 * 2**20) + b'"}'
AS_FORM = FIELD % b"demo" + FILE + b"x" * (2 * 2**20) + b"\r\n--B--\r\n"


@pytest.mark.parametrize(
    ("path", "head", "body"),
    [
        (ANY + b"/files", b"X-A: b", JSON),
        (b"/llama-cpp/demo/tokenize", b"X-A: b", JSON),
        (CHAT, b"X-A: b", JSON),
        (AUDIO, FORM, AS_FORM),
    ],
)
async def test_length_of_an_upload_in_chunks_is_told_to_the_backend_on_every_path(
    client: RawClient,
    backend: RawBackend,
    gateway: TableGateway,
    path: bytes,
    head: bytes,
    body: bytes,
) -> None:
    gateway.max_body_bytes = SIZE
    pieces = chunks(body[:5], body[5:-5], body[-5:])
    client.ask(b"POST " + path, head, b"Transfer-Encoding: chunked", body=pieces)
    assert (await client.answer()).status == 200
    (request,) = backend.requests
    assert request.values(b"content-length") == [b"%d" % len(body)]
    assert request.values(b"transfer-encoding") == []
    assert request.body == body


PACKED = [
    (b"gzip", gzip.compress),
    (b"identity, GZIP", gzip.compress),
    (b"deflate", zlib.compress),
    (b"zstd", zstandard.compress),
]


@pytest.mark.parametrize(
    ("path", "head", "body"),
    [
        (ANY + b"/files", b"X-A: b", JSON),
        (b"/llama-cpp/demo/tokenize", b"X-A: b", JSON),
        (CHAT, b"X-A: b", JSON),
        (AUDIO, FORM, AS_FORM),
    ],
)
@pytest.mark.parametrize(("coding", "pack"), PACKED)
async def test_packed_body_is_unpacked_on_every_path(
    client: RawClient,
    backend: RawBackend,
    gateway: TableGateway,
    path: bytes,
    head: bytes,
    body: bytes,
    coding: bytes,
    pack: Callable[[bytes], bytes],
) -> None:
    gateway.max_body_bytes = SIZE
    client.post(path, pack(body), head, b"Content-Encoding: " + coding)
    assert (await client.answer()).status == 200
    (request,) = backend.requests
    assert request.values(b"content-encoding") == []
    assert request.values(b"content-length") == [b"%d" % len(body)]
    assert request.body == body


@pytest.mark.parametrize("path", [ANY + b"/files", b"/llama-cpp/demo/tokenize", CHAT, AUDIO])
@pytest.mark.parametrize("coding", [b"br", b"gzip, zstd", b"aes128gcm"])
async def test_body_of_an_unknown_coding_is_refused_on_every_path(
    client: RawClient, backend: RawBackend, path: bytes, coding: bytes
) -> None:
    client.post(path, MODEL, b"Content-Encoding: " + coding)
    answer = await client.answer()
    assert answer.status == 415
    assert answer.values(b"accept-encoding") == [b"gzip, deflate, zstd"]
    assert not backend.connections


@pytest.mark.parametrize("path", [ANY + b"/files", b"/llama-cpp/demo/tokenize", CHAT, AUDIO])
@pytest.mark.parametrize(("coding", "pack"), PACKED)
async def test_packed_bomb_is_refused_on_every_path(
    client: RawClient,
    backend: RawBackend,
    path: bytes,
    coding: bytes,
    pack: Callable[[bytes], bytes],
) -> None:
    client.post(path, pack(b"{" + b" " * SIZE), FORM, b"Content-Encoding: " + coding)
    assert (await client.answer()).status == 413
    assert not backend.connections


@pytest.mark.parametrize("path", [ANY + b"/files", CHAT])
async def test_body_that_is_not_packed_as_it_says_is_refused(
    client: RawClient, backend: RawBackend, path: bytes
) -> None:
    client.post(path, MODEL, b"Content-Encoding: gzip")
    answer = await client.answer()
    assert answer.status == 400
    assert b"Content-Encoding" in answer.body
    assert not backend.connections


@pytest.mark.parametrize("path", [ANY + b"/files", b"/llama-cpp/demo/tokenize", CHAT])
async def test_body_that_says_it_is_not_packed_is_taken(
    client: RawClient, backend: RawBackend, path: bytes
) -> None:
    client.post(path, MODEL, b"Content-Encoding: identity")
    assert (await client.answer()).status == 200


async def test_upload_in_chunks_beyond_the_limit_goes_on_in_chunks(
    client: RawClient, backend: RawBackend
) -> None:
    # Only with a management key; an inference key gets 413.
    client.ask(b"PUT " + ANY + b"/files", b"Transfer-Encoding: chunked")
    for number in range(4):
        client.send(b"100000\r\n" + b"%d" % number * 2**20 + b"\r\n")
    client.send(b"0\r\n\r\n")
    assert (await client.answer()).status == 200
    (request,) = backend.requests
    assert request.values(b"transfer-encoding") == [b"chunked"]
    assert request.body == b"".join(b"%d" % number * 2**20 for number in range(4))


async def test_upload_waits_for_the_start_and_goes_on_then(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    gateway.max_body_bytes = 2 * SIZE
    target = gateway.live.table.targets["demo"]
    gateway.lay(replace(target, status=Status.STARTING))
    client.ask(b"POST /llama-cpp/demo/tokenize", b"Content-Length: %d" % SIZE)
    client.send(b"x" * SIZE)
    await asyncio.sleep(0.1)
    assert not backend.connections
    gateway.lay(target)
    assert (await client.answer()).status == 200
    assert backend.requests[0].body == b"x" * SIZE


async def test_answer_before_the_end_of_an_upload_reaches_the_client(
    client: RawClient, backend: RawBackend
) -> None:
    async def refuse(session: Session) -> None:
        await session.reader.readuntil(b"\r\n\r\n")
        await session.send(
            b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
        )
        await session.until_closed()

    backend.script = refuse
    client.ask(b"POST " + ANY + b"/files", b"Content-Length: %d" % SIZE)
    client.send(b"x" * (SIZE // 4))
    answer = await client.answer()
    assert (answer.status, answer.body) == (413, b"no")
    # It should take the rest for the upload's, and not for the next request.
    client.send(b"x" * (SIZE - SIZE // 4))
    backend.script = backend._answer
    client.post(CHAT, MODEL)
    assert (await client.answer()).body == b"{}"


async def test_large_form_goes_through_once_its_model_is_known(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    gateway.max_body_bytes = 2 * SIZE
    gateway.lay(replace(gateway.live.table.targets["demo"], served_model="org/whisper"))
    came = asyncio.Event()

    async def play(session: Session) -> None:
        await session.reader.readuntil(b"org/whisper")
        await session.reader.readexactly(WHOLE_BYTES)
        came.set()
        rest = len(body) - len(FIELD % b"demo") + 2 - WHOLE_BYTES
        assert (await session.reader.readexactly(rest)).endswith(b"\r\n--B--\r\n")
        await session.send(OK)

    backend.script = play
    body = FIELD % b"demo" + FILE + b"x" * SIZE + b"\r\n--B--\r\n"
    client.ask(b"POST " + AUDIO, FORM, b"Content-Length: %d" % len(body))
    client.send(body[: SIZE // 2])
    # It should be at the backend before the client has sent it all.
    await asyncio.wait_for(came.wait(), 20)
    client.send(body[SIZE // 2 :])
    assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("served_model", "room", "status"), [("org/whisper", 0, 200), ("w", -1, 413)]
)
async def test_limit_is_for_the_form_that_the_client_sends(
    client: RawClient,
    backend: RawBackend,
    gateway: TableGateway,
    served_model: str,
    room: int,
    status: int,
) -> None:
    gateway.lay(replace(gateway.live.table.targets["demo"], served_model=served_model))
    body = FIELD % b"demo" + FILE + b"x" * SIZE + b"\r\n--B--\r\n"
    gateway.max_body_bytes = len(body) + room
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    client.ask(b"POST " + AUDIO, FORM, b"Transfer-Encoding: chunked", body=chunks)
    assert (await client.answer()).status == status
    assert [request.is_whole for request in backend.requests] == [True] * (status == 200)


async def test_large_form_whose_model_comes_last_arrives_whole(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    gateway.max_body_bytes = 2 * SIZE
    body = FILE + b"x" * SIZE + b"\r\n" + FIELD % b"demo" + b"--B--\r\n"
    client.post(AUDIO, body, FORM)
    assert (await client.answer()).status == 200
    assert [request.body for request in backend.requests] == [body]


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (b"\r\n" + FIELD % b"other" + b"--B--\r\n", b"model is given twice"),
        (b"\r\n--B--other\r\n", b""),
        (b"\r\n--B other", b"follows a boundary"),
        (b"", b"breaks off"),
    ],
)
async def test_backend_never_has_a_whole_form_that_means_something_else(
    client: RawClient, backend: RawBackend, gateway: TableGateway, end: bytes, why: bytes
) -> None:
    gateway.max_body_bytes = 2 * SIZE
    body = FIELD % b"demo" + FILE + b"x" * SIZE + end
    client.post(AUDIO, body, FORM)
    answer = await client.answer()
    assert answer.status == (400 if why else 200)
    assert why in answer.body
    await until_async(lambda: backend.closed == 1, "the connection to the backend closed")
    assert [request.is_whole for request in backend.requests] == [not why]


async def test_large_form_for_another_instance_is_refused_before_it_is_sent(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    gateway.max_body_bytes = 2 * SIZE
    client.key = BOB.encode()
    client.ask(b"POST " + AUDIO, FORM, b"Content-Length: %d" % SIZE)
    client.send(FIELD % b"demo" + FILE + b"x" * 1000)
    assert (await client.answer()).status == 403
    assert not backend.connections


@pytest.mark.parametrize("path", [ANY + b"/files", CHAT])
async def test_upload_is_not_sent_again_and_a_body_that_is_held_is(
    client: RawClient, backend: RawBackend, gateway: TableGateway, path: bytes
) -> None:
    gateway.max_body_bytes = 2 * SIZE

    async def die_once(session: Session) -> None:
        if backend.connections == 1:
            await session.reader.readexactly(SIZE)
            session.writer.transport.abort()
            return
        await session.request()
        await session.send(OK)

    backend.script = die_once
    body = b'{"model":"demo","x":"' + b"x" * SIZE + b'"}'
    client.post(path, body)
    assert (await client.answer()).status == (502 if path != CHAT else 200)
    assert [request.body for request in backend.requests] == ([] if path != CHAT else [body])


async def test_backend_that_stops_taking_an_upload_is_504(
    client: RawClient, backend: RawBackend, gateway: TableGateway
) -> None:
    gateway.upstream.timeouts = gateway.upstream.timeouts._replace(idle=0.3, first_byte=5)

    async def play(session: Session) -> None:
        session.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    backend.script = play
    size = 64 * 2**20
    client.ask(b"POST " + ANY + b"/files", b"Content-Length: %d" % size)
    client.send(b"x" * size)
    async with asyncio.timeout(20):
        assert (await read_message(client.reader)).status == 504
