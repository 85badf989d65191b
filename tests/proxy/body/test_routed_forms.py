"""Forms through the whole consumer, to a server that parses them with a parser of its own."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.asgi import ProxyApplication
from tests.proxy.conftest import ALICE, BOB, TableGateway, make_target
from tests.support.asgi import AsgiRequest, AsgiResponse

AUDIO = b"RIFF\r\n--" * (2**20 * 30 // 8)


@pytest.fixture
async def parsed(gateway: TableGateway) -> AsyncIterator[list[dict[str, str]]]:
    """The requests as aiohttp's form parser read them; a file is shown by its digest."""
    seen: list[dict[str, str]] = []

    async def transcribe(request: web.Request) -> web.Response:
        form = {}
        for name, value in (await request.post()).items():
            if isinstance(value, web.FileField):
                form[name] = hashlib.sha256(value.file.read()).hexdigest()
            else:
                form[name] = str(value)
        form["length"] = request.headers["Content-Length"]
        seen.append(form)
        return web.json_response({"text": "hello"})

    application = web.Application(client_max_size=2**26)
    application.router.add_post("/{path:.*}", transcribe)
    server = TestServer(application)
    await server.start_server()
    gateway.max_body_bytes = 2**26
    gateway.lay(make_target(str(server.make_url("")).rstrip("/"), served_model="org/Whisper-Großé"))
    yield seen
    await server.close()


def form(*fields: tuple[str, bytes], boundary: str = "sep ar:ator") -> bytes:
    body = b""
    for name, value in fields:
        file = '; filename="a.wav"\r\nContent-Type: audio/wav' if name == "file" else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + value + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


async def send(
    app: ProxyApplication, body: bytes, *, path: str = "/v1/audio/transcriptions", key: str = ALICE
) -> AsgiResponse:
    content_type = (b"content-type", b'multipart/form-data; boundary="sep ar:ator"')
    return await AsgiRequest(app, path, key=key, body=body, headers=[content_type]).finish(30)


@pytest.mark.parametrize(
    "path", ["/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits"]
)
async def test_model_after_a_large_file_is_found_and_replaced(
    app: ProxyApplication, parsed: list[dict[str, str]], path: str
) -> None:
    body = form(("language", b"en"), ("file", AUDIO), ("model", b"demo"), ("prompt", b"p"))
    answer = await send(app, body, path=path)
    assert (answer.status, answer.json()) == (200, {"text": "hello"})
    model = "org/Whisper-Großé"
    assert parsed == [
        {
            "language": "en",
            "file": hashlib.sha256(AUDIO).hexdigest(),
            "model": model,
            "prompt": "p",
            "length": str(len(body) - len("demo") + len(model.encode())),
        }
    ]


async def test_form_of_a_router_names_the_model_after_the_slash(
    app: ProxyApplication, parsed: list[dict[str, str]], gateway: TableGateway
) -> None:
    await send(app, form(("model", b"demo/tiny"), ("file", b"x")))
    assert parsed[0]["model"] == "tiny"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(("file", b"x")), 400),
        (form(("model", b"demo"), ("model", b"other")), 400),
        (form(("model", b"nope")), 404),
        (b"no form", 400),
        (b"", 400),
    ],
)
async def test_form_without_a_known_model_is_refused_in_openais_shape(
    app: ProxyApplication, parsed: list[dict[str, str]], body: bytes, status: int
) -> None:
    answer = await send(app, body)
    assert answer.status == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert not parsed


async def test_key_of_another_instance_opens_no_form_either(
    app: ProxyApplication, parsed: list[dict[str, str]]
) -> None:
    assert (await send(app, form(("model", b"demo")), key=BOB)).status == 403
    assert not parsed


async def test_json_is_read_as_json_whatever_the_content_type_says(
    app: ProxyApplication, gateway: TableGateway
) -> None:
    answer = await send(app, b'{"model": "nope"}')
    assert answer.json()["error"]["code"] == "model_not_found"
