"""A real model through llamactl, as a user's own program meets it."""

from __future__ import annotations

import socket
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.support.lazy_import import lazy_import
from tests.support.stack import Stack
from tests.support.until import until

if TYPE_CHECKING:
    import openai
else:
    openai = lazy_import("openai")

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.timeout(180)]

MESSAGES: list[Any] = [{"role": "user", "content": "Count from one to a hundred."}]


@pytest.fixture(scope="module")
def demo(stack: Stack, model: dict[str, object]) -> str:
    stack.create("demo", model)
    stack.create("other", model)
    return stack.new_key()


@pytest.fixture(scope="module", autouse=True)
def brief_use(stack: Stack, demo: str, model: dict[str, object]) -> tuple[float, float]:
    """The time before and after the last use of ``brief``, whose idle timeout is a minute.

    Autouse, at the begin of the module: the minute passes while the other tests run.
    """
    stack.create("brief", model, idle_timeout=1)
    assert stack.chat("brief", demo, max_tokens=1).status_code == 200
    began = time.time()
    assert stack.chat("brief", demo, max_tokens=1).status_code == 200
    return began, time.time()


def client(stack: Stack, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0)


def stream_of(stack: Stack, key: str, *, max_tokens: int) -> openai.Stream[Any]:
    return client(stack, key).chat.completions.create(
        model="demo",
        messages=MESSAGES,
        max_tokens=max_tokens,
        stream=True,
        extra_body={"ignore_eos": True},
    )


def test_many_concurrent_first_requests_make_one_process(stack: Stack, demo: str) -> None:
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda _: stack.chat("demo", demo, max_tokens=2), range(30)))
    assert [answer.status_code for answer in answers] == [200] * 30
    assert len(stack.backends("demo")) == 1
    log = stack.call("GET", "/api/v1/instances/demo/logs").text
    assert log.count("started at") == 1


def test_websocket_that_llama_cpp_does_not_have_is_refused_with_its_own_status(
    stack: Stack, demo: str
) -> None:
    stack.call("POST", "/api/v1/instances/demo/start")
    stack.until_status("demo", "running")
    answer = requests.get(
        f"{stack.url}/api/v1/instances/demo/proxy/nowhere",
        headers={
            "Authorization": f"Bearer {stack.management_key}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        },
        timeout=20,
    )
    assert (answer.status_code, answer.json()["error"]) == (404, "backend_refused")


def test_chat(stack: Stack, demo: str) -> None:
    answer = client(stack, demo).chat.completions.create(
        model="demo", messages=MESSAGES, max_tokens=8
    )
    assert answer.choices[0].message.content
    assert answer.model == "demo"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_streamed_chat_arrives_token_by_token(stack: Stack, demo: str) -> None:
    arrivals = []
    stream = stream_of(stack, demo, max_tokens=200)
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            arrivals.append(time.monotonic())
    assert len(arrivals) > 100
    # It should not come in one piece at the end.
    assert arrivals[-1] - arrivals[0] > 0.05


def test_key_of_one_instance_opens_no_other(stack: Stack, demo: str) -> None:
    key = stack.new_key(
        permission_mode="per_instance", instance_ids=[stack.instance("other")["id"]]
    )
    with pytest.raises(openai.PermissionDeniedError):
        client(stack, key).chat.completions.create(model="demo", messages=MESSAGES)
    assert [model.id for model in client(stack, key).models.list()] == ["other"]


def test_revoked_key_stops_working(stack: Stack, demo: str) -> None:
    key = stack.new_key(name="to be revoked")
    assert client(stack, key).models.list().data
    newest = stack.call("GET", "/api/v1/auth/keys").json()[0]
    assert newest["name"] == "to be revoked"
    stack.call("DELETE", f"/api/v1/auth/keys/{newest['id']}")

    def is_refused() -> bool:
        headers = {"Authorization": f"Bearer {key}"}
        return requests.get(f"{stack.url}/v1/models", headers=headers, timeout=5).status_code == 401

    until(is_refused, "the key refused", seconds=20)


@pytest.mark.parametrize("tokens_before", [0, 3])
def test_client_that_disconnects_frees_the_slot(
    stack: Stack, demo: str, tokens_before: int
) -> None:
    stream = stream_of(stack, demo, max_tokens=900)
    for _, _chunk in zip(range(tokens_before), stream, strict=False):
        pass
    until(lambda: stack.busy_slots("demo") == 1, "one slot busy", seconds=20)
    stream.close()
    until(lambda: stack.busy_slots("demo") == 0, "the slot free", seconds=15)


def test_client_that_disconnects_without_reading_frees_the_slot(stack: Stack, demo: str) -> None:
    body = (
        '{"model":"demo","stream":true,"max_tokens":900,"ignore_eos":true,'
        '"messages":[{"role":"user","content":"' + "long prompt " * 100 + '"}]}'
    )
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {demo}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        # It may have to start first.
        until(lambda: stack.busy_slots("demo") == 1, "one slot busy", seconds=60)
    until(lambda: stack.busy_slots("demo") == 0, "the slot free", seconds=15)


def test_a_cancelled_stream_ends_with_an_error_and_frees_the_slot(stack: Stack, demo: str) -> None:
    stream = stream_of(stack, demo, max_tokens=900)
    next(iter(stream))
    (running,) = stack.call("GET", "/api/v1/requests").json()["requests"]
    assert (running["instance"], running["phase"]) == ("demo", "streaming")
    # It should be the id that the client has.
    assert running["id"] == stream.response.headers["x-request-id"]
    answer = stack.call("DELETE", f"/api/v1/requests/{running['id']}")
    assert (answer.status_code, answer.json()["other_requests"]) == (200, 0)
    with pytest.raises(openai.APIError) as error:
        for _ in stream:
            pass
    assert error.value.code == "request_cancelled"
    until(lambda: stack.busy_slots("demo") == 0, "the slot free", seconds=15)
    assert stack.call("DELETE", f"/api/v1/requests/{running['id']}").status_code == 404


@pytest.mark.slow
def test_stop_lets_the_running_stream_finish_and_refuses_new_requests(
    stack: Stack, demo: str
) -> None:
    stream = stream_of(stack, demo, max_tokens=250)
    chunks = [next(iter(stream))]
    assert stack.call("POST", "/api/v1/instances/demo/stop").status_code == 200

    def refusal() -> dict[str, Any] | None:
        answer = stack.chat("demo", demo, max_tokens=1)
        return answer.json()["error"] if answer.status_code == 503 else None

    refused = until(refusal, "new requests refused", seconds=20)
    assert refused is not None
    assert refused["code"] == "instance_shutting_down"
    chunks += list(stream)
    assert chunks[-1].choices[0].finish_reason == "length"
    stack.until_status("demo", "stopped", 60)
    assert not stack.backends("demo")


def test_restart_is_a_new_process_on_the_same_port(stack: Stack, demo: str) -> None:
    before = stack.instance("other")
    stack.call("POST", "/api/v1/instances/other/start")
    stack.until_status("other", "running")
    first = [process.pid for process in stack.backends("other")]
    stack.call("POST", "/api/v1/instances/other/restart")

    def is_replaced() -> bool:
        now = [process.pid for process in stack.backends("other")]
        return len(now) == 1 and now != first

    until(is_replaced, "a new process")
    after = stack.until_status("other", "running")
    options = "options", "backend_options", "port"
    assert before[options[0]][options[1]][options[2]] == after[options[0]][options[1]][options[2]]


def test_backends_key_is_neither_in_its_arguments_nor_in_its_log(stack: Stack, demo: str) -> None:
    stack.call("POST", "/api/v1/instances/other/start")
    stack.until_status("other", "running")
    backend = stack.backends("other")[0]
    key = backend.environ()["LLAMA_API_KEY"]
    assert len(key) == 64
    assert key not in " ".join(backend.cmdline())
    assert key not in stack.call("GET", "/api/v1/instances/other/logs").text
    port = stack.instance("other")["options"]["backend_options"]["port"]
    # Without the key no local user gets past llamactl.
    assert requests.get(f"http://127.0.0.1:{port}/props", timeout=5).status_code == 401
    ours = {"SECRET", "PASSWORD", "LLAMACTL_MANAGEMENT"}
    assert not [name for name in backend.environ() if any(word in name for word in ours)]


def test_demo_files_are_private(stack: Stack, demo: str) -> None:
    private = ["management_key", "secret_key", "admin_password", "llamactl.db", "llamactl.db-wal"]
    for path in [*(stack.data_dir / name for name in private), *stack.data_dir.glob("logs/*")]:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.slow
def test_an_unused_model_is_stopped_and_comes_back(
    stack: Stack, demo: str, brief_use: tuple[float, float]
) -> None:
    began, ended = brief_use
    found = stack.until_status("brief", "stopped", within_seconds=90)
    assert (found["desired_state"], found["requested_by"]) == ("stopped", "supervisor:idle")
    assert began - 1 <= found["last_used_at"] <= ended + 1
    with closing(sqlite3.connect(stack.database, timeout=10)) as database:
        [(stopped_at,)] = database.execute(
            "select strftime('%s', h.at) from instances_statuschange h"
            " join instances_instance i on i.id = h.instance_id"
            " where i.name = 'brief' and h.new = 'shutting_down'"
        )
    assert int(stopped_at) + 1 - found["last_used_at"] >= 60
    assert stack.chat("brief", demo, max_tokens=1).status_code == 200
