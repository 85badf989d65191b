from __future__ import annotations

import logging

import pytest

from llamactl.asgi import build
from llamactl.core.asgi_types import Receive, Scope, Send
from llamactl.logging import LineFormatter
from llamactl.middleware.request_ids import RequestIds
from tests.support.asgi import AsgiRequest


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/v1/instances", 401), ("/api/v1/nowhere", 401), ("/admin/", 302), ("/nowhere", 404)],
)
async def test_every_answer_of_django_has_one_id(path: str, status: int) -> None:
    headers = [(b"x-request-id", b"theirs"), (b"host", b"localhost")]
    answer = await AsgiRequest(build(), path, method="GET", headers=headers).finish()
    assert answer.status == status
    (found,) = [value for name, value in answer.headers if name.lower() == b"x-request-id"]
    assert len(bytes.fromhex(found.decode())) == 16


async def test_log_lines_of_a_request_to_django_have_the_ids() -> None:
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(LineFormatter().format(record))

    logger = logging.getLogger("tests.request_ids")
    logger.addHandler(Handler())

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        logger.warning("a line")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    headers = [(b"x-request-id", b"theirs")]
    answer = await AsgiRequest(RequestIds(application), "/x", headers=headers).finish()
    ours = answer.header("x-request-id")
    assert lines[0].endswith(f"a line request_id={ours} client_request_id=theirs")
    logger.warning("after it")
    assert lines[1].endswith("after it")
