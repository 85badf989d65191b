"""Requests that activate an instance, from a client to a real backend server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from instances.states import DesiredState, Status
from keys.secrets import digest
from proxy.asgi import ProxyApplication
from proxy.table.table import KeyRule
from tests.proxy.conftest import (
    ALICE,
    MANAGER,
    Backend,
    TableGateway,
    make_target,
    rules,
    stopped,
)
from tests.support.asgi import AsgiRequest

CHAT = "/v1/chat/completions"


def ask(app: ProxyApplication, key: str | None = ALICE, **changes: Any) -> AsgiRequest:
    return AsgiRequest(app, CHAT, key=key, **{"json": {"model": "demo"}, **changes})


async def test_concurrent_requests_share_one_start_and_all_are_answered(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(stopped(backend))
    exchanges = [ask(app).start() for _ in range(20)]
    await asyncio.wait_for(gateway.start_was_requested.wait(), 5)
    await asyncio.sleep(0)
    starting = {"desired_state": DesiredState.RUNNING, "generation": 2, "observed_generation": 2}
    gateway.lay(make_target(backend.origin, status=Status.STARTING, **starting))
    late = ask(app).start()
    await asyncio.sleep(0.01)
    assert not backend.requests
    gateway.lay(make_target(backend.origin, **starting))
    answers = [await exchange.finish() for exchange in [*exchanges, late]]
    assert {answer.status for answer in answers} == {200}
    assert gateway.starts == ["demo"]


async def test_failed_start_is_explained_to_every_request_that_waits(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(stopped(backend))
    exchanges = [ask(app).start() for _ in range(3)]
    await asyncio.wait_for(gateway.start_was_requested.wait(), 5)
    gateway.lay(
        make_target(
            backend.origin,
            status=Status.FAILED,
            generation=2,
            observed_generation=2,
            failure={
                "reason": "model_not_found",
                "details": "the model file /m.gguf is not there",
                "exit_code": 1,
                "log_tail": ["failed to open /m.gguf"],
            },
        )
    )
    for exchange in exchanges:
        answer = await exchange.finish()
        error = answer.json()["error"]
        assert answer.status == 502
        assert error["code"] == "backend_start_failed"
        assert (error["reason"], error["exit_code"]) == ("model_not_found", 1)
        assert error["log_tail"] == ["failed to open /m.gguf"]
        # It should keep the openai package from starting a broken backend three times.
        assert answer.header("x-should-retry") == "false"


async def test_failure_of_an_earlier_start_does_not_answer_a_new_one(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    failed = make_target(backend.origin, status=Status.FAILED, failure={"reason": "crashed"})
    gateway.lay(failed)
    exchange = ask(app).start()
    await asyncio.wait_for(gateway.start_was_requested.wait(), 5)
    await asyncio.sleep(0.01)
    assert not exchange.response.status
    gateway.lay(make_target(backend.origin, generation=2, observed_generation=2))
    assert (await exchange.finish()).status == 200


NO_ACCESS = {digest(ALICE): KeyRule(1, digest(ALICE), frozenset({99}))}
EXPIRED = {digest(ALICE): KeyRule(1, digest(ALICE), None, expires_at=1.0)}
REVOCATIONS = [
    pytest.param({}, 401, id="deleted"),
    pytest.param(EXPIRED, 401, id="expired"),
    pytest.param(NO_ACCESS, 403, id="permission taken"),
]


@pytest.mark.parametrize(("keys", "status"), REVOCATIONS)
@pytest.mark.parametrize(
    "path", [CHAT, "/v1/messages", "/llama-cpp/demo/completion", "/llama-cpp/demo/v1/responses"]
)
async def test_key_that_is_revoked_during_the_wait_opens_nothing(
    app: ProxyApplication,
    backend: Backend,
    gateway: TableGateway,
    keys: dict[bytes, KeyRule],
    status: int,
    path: str,
) -> None:
    gateway.lay(stopped(backend, is_llama_server=True))
    exchange = AsgiRequest(app, path, key=ALICE, json={"model": "demo"}).start()
    await asyncio.wait_for(gateway.start_was_requested.wait(), 5)
    ready = {"generation": 2, "observed_generation": 2, "is_llama_server": True}
    gateway.lay(make_target(backend.origin, **ready), keys=keys)
    answer = await exchange.finish()
    assert answer.status == status
    assert answer.header("x-should-retry") == "false"
    assert not backend.requests


async def test_key_that_another_key_of_the_start_outlives_is_refused_alone(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(stopped(backend))
    revoked, kept = ask(app).start(), ask(app, MANAGER).start()
    await asyncio.wait_for(gateway.start_was_requested.wait(), 5)
    ready = make_target(backend.origin, generation=2, observed_generation=2)
    gateway.lay(ready, keys={key: rule for key, rule in rules().items() if rule.id != 1})
    assert (await revoked.finish()).status == 401
    assert (await kept.finish()).status == 200


async def test_request_waits_no_longer_than_it_may(
    backend: Backend, app: ProxyApplication, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, status=Status.STARTING))
    gateway.activator._timeout_seconds = 0.05
    answer = await ask(app).finish()
    assert answer.status == 503
    assert answer.json()["error"]["reason"] == "timeout"
    assert answer.header("retry-after") is not None


async def test_instance_without_on_demand_start_is_not_started(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(stopped(backend, on_demand_start=False))
    answer = await ask(app).finish()
    assert (answer.status, answer.json()["error"]["code"]) == (503, "instance_not_running")
    assert not gateway.starts


@pytest.mark.parametrize("status", [Status.RUNNING, Status.SHUTTING_DOWN])
async def test_instance_that_is_asked_to_stop_takes_no_new_request(
    app: ProxyApplication, backend: Backend, gateway: TableGateway, status: Status
) -> None:
    gateway.lay(stopped(backend, status=status))
    answer = await ask(app).finish()
    assert (answer.status, answer.json()["error"]["code"]) == (503, "instance_shutting_down")


async def test_instance_deleted_while_a_request_waits_is_404(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, status=Status.STARTING))
    exchange = ask(app).start()
    await asyncio.sleep(0.01)
    gateway.lay()
    assert (await exchange.finish()).status == 404


async def test_stop_before_the_node_saw_the_start_ends_the_wait_for_it(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(stopped(backend))
    exchange = ask(app).start()
    await asyncio.wait_for(gateway.start_was_requested.wait(), 5)
    gateway.lay(stopped(backend, generation=2))
    answer = await exchange.finish(2)
    assert (answer.status, answer.json()["error"]["code"]) == (503, "instance_not_running")


async def test_stop_of_a_restart_that_is_waited_for_ends_the_wait(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, status=Status.SHUTTING_DOWN, generation=2))
    exchange = ask(app).start()
    await asyncio.sleep(0.01)
    gateway.lay(stopped(backend, generation=2))
    assert (await exchange.finish(2)).status == 503


async def test_instance_made_anew_under_the_name_is_not_the_one_waited_for(
    app: ProxyApplication, backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(make_target(backend.origin, status=Status.STARTING))
    exchange = ask(app).start()
    await asyncio.sleep(0.01)
    gateway.lay(make_target(backend.origin, id=7))
    # Its key was checked for the old one.
    assert (await exchange.finish(2)).status == 404
    assert not backend.requests
