"""Discovery of models: each start asks once, and nothing is started or read by a request."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from instances.model_info import ModelInfo
from tests.instances.test_model_info import LENGTH, LLAMA_MODELS, LLAMA_PROPS, gguf
from tests.proxy.conftest import Backend, TableGateway, make_target, stopped
from tests.support.until import until_async


async def llama_server(request: web.Request) -> web.StreamResponse:
    assert request.headers["Authorization"] == "Bearer of-the-backend"
    return web.json_response(LLAMA_PROPS if request.path == "/props" else LLAMA_MODELS)


def _is_told(gateway: TableGateway, generation: int) -> bool:
    return [told[1] for told in gateway.facts] == list(range(1, generation + 1))


async def test_each_start_asks_the_backend_once(backend: Backend, gateway: TableGateway) -> None:
    backend.handler = llama_server
    gateway.lay(stopped(backend, is_llama_server=True))
    gateway.models.start()
    try:
        for generation in (1, 1, 2):
            gateway.lay(
                make_target(
                    backend.origin,
                    is_llama_server=True,
                    generation=generation,
                    observed_generation=generation,
                )
            )
            await until_async(partial(_is_told, gateway, generation))
    finally:
        await gateway.models.stop()
    assert [request.path for request in backend.requests] == ["/v1/models", "/props"] * 2
    assert gateway.facts[0][2]["context_length"] == 2048


async def test_only_a_settled_instance_with_one_model_is_asked(
    backend: Backend, gateway: TableGateway
) -> None:
    gateway.lay(
        stopped(backend),
        make_target(backend.origin, id=2, name="restarting", generation=2),
        make_target(backend.origin, id=3, name="router", served_model=None),
    )
    await gateway.models.ask_all()
    assert not backend.requests


@pytest.mark.parametrize("body", [b"{", b"[" * 2**19, b'{"data":[' + b"1," * 300_000 + b"1]}"])
async def test_answer_that_is_none_is_asked_for_again_and_given_up(
    backend: Backend, gateway: TableGateway, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    async def odd(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    monkeypatch.setattr("proxy.model_discovery.RETRY_SECONDS", 0)
    backend.handler = odd
    await gateway.models.ask_all()
    await gateway.models.ask_all()
    assert (len(backend.requests), gateway.facts) == (3, [])


async def test_file_tells_the_length_until_something_better_is_known(
    backend: Backend, gateway: TableGateway, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(LENGTH))
    target = stopped(backend, model_file=str(path))
    gateway.lay(target, stopped(backend, id=2, name="b", model_file=str(tmp_path)))
    await gateway.models.read_all()
    assert gateway.models.context_length(target) == 4096
    known = stopped(backend, model_file=str(path), info=ModelInfo(context_length=512))
    assert gateway.models.context_length(known) == 512
    # It should see that another file took the place.
    path.write_bytes(b"GGUF")
    await gateway.models.read_all()
    assert gateway.models.context_length(target) is None
    await gateway.models.stop()
