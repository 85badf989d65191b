"""The event loop of these tests is the one that a web process has."""

from __future__ import annotations

from tests.proxy.sockets.conftest import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
