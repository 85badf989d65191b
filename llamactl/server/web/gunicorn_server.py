"""llamactl's web server in a gunicorn worker process; imported after the fork."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from gunicorn.workers.base import Worker

from llamactl.config import current
from llamactl.server.web.server import (
    UVICORN_OPTIONS,
    Server,
    allow_many_connections,
    filter_uvicorn_log,
)

DRAIN_SECONDS = 1.0
"""How long established connections may still send a request after SIGTERM. Longer than under
``manage.py run``: during a rolling restart clients with pooled connections, such as nginx, go on
sending requests, and a request on a connection that is just being closed fails."""

NOTIFY_SECONDS = 1.0
"""Interval of the notifications to gunicorn during a shutdown."""


class WorkerServer(Server):
    """The web server of one gunicorn worker.

    gunicorn kills a worker that sends no notification for ``timeout`` seconds. uvicorn notifies in
    its main loop alone, which has ended before a shutdown whose grace period may be longer.
    """

    def __init__(self, worker: Worker) -> None:
        if worker.cfg.is_ssl:
            raise ValueError("TLS is for a proxy in front of llamactl: unset certfile and keyfile")
        self._worker = worker
        allow_many_connections()
        filter_uvicorn_log()
        options = {
            **UVICORN_OPTIONS,
            "timeout_graceful_shutdown": worker.cfg.graceful_timeout,
            "timeout_notify": worker.timeout,
            "callback_notify": self._notify,
            "limit_max_requests": worker.max_requests,
        }
        # The application is loaded later, by gunicorn.
        config = uvicorn.Config("", **options)
        super().__init__(
            config,
            processes=worker.cfg.workers,
            ui_port=current().server.ui_port,
            drain_seconds=DRAIN_SECONDS,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        async with self._notifications():
            await super().shutdown(sockets)

    async def _notify(self) -> None:
        self._worker.notify()

    @asynccontextmanager
    async def _notifications(self) -> AsyncIterator[None]:
        async def notify_until_cancelled() -> None:
            while True:
                await self._notify()
                await asyncio.sleep(NOTIFY_SECONDS)

        task = asyncio.create_task(notify_until_cancelled())
        try:
            yield
        finally:
            task.cancel()
