"""Fixtures of WebSocket tests at a real server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from llamactl.config import AppConfig
from tests.proxy.conftest import Backend
from tests.proxy.websocket.served import Served


@pytest.fixture
def nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No behaviour of a peer is logged as an error of llamactl."""
    yield
    assert not [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.WARNING
    ]


@pytest.fixture
async def served(
    backend: Backend, config: AppConfig, nothing_logged: None
) -> AsyncIterator[Served]:
    served = Served(config, backend.origin)
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session
