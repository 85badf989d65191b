"""The proxy's gateway and backend, for the operations that the proxy answers."""

from __future__ import annotations

from tests.proxy.conftest import app, backend, gateway

__all__ = ["app", "backend", "gateway"]
