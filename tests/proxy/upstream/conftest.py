"""The client alone, against a backend that plays bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.upstream import Upstream, UpstreamResponse
from tests.proxy.conftest import make_target
from tests.proxy.sockets.conftest import backend, pytest_asyncio_loop_factories
from tests.support.wire import RawBackend

__all__ = ["backend", "pytest_asyncio_loop_factories"]


class Asker:
    """Sends requests as the proxy does."""

    def __init__(self, upstream: Upstream, backend: RawBackend) -> None:
        self.upstream = upstream
        self._target = make_target(backend.origin)

    async def ask(self, body: bytes = b"{}", *, method: str = "POST") -> UpstreamResponse:
        return await self.upstream.open(
            self._target, method=method, path_and_query="/x", headers=[], body=body
        )

    async def body(self, body: bytes = b"{}", *, method: str = "POST") -> bytes:
        with await self.ask(body, method=method) as answer:
            return await answer.read_whole(2**24)


@pytest.fixture
async def asker(backend: RawBackend) -> AsyncIterator[Asker]:
    upstream = Upstream()
    yield Asker(upstream, backend)
    await upstream.close()
