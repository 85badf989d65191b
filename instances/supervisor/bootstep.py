"""Celery bootstep that starts and stops the supervisor with the worker.

A step of the worker and not of its connection to the broker: the supervisor starts before there is
a connection, and runs on while the broker is away.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from django.conf import settings

from instances.supervisor.process.pidfd import reset_ignored_signals
from instances.supervisor.supervisor import Supervisor
from keys.secrets import backend_key
from llamactl.config import current
from llamactl.core.parent_heartbeat import ParentHeartbeat

POOL = "celery.concurrency.thread:TaskPool"


class SupervisorStep(bootsteps.StartStopStep):
    """Registered on ``app.steps["worker"]``. Celery calls its methods in the main thread."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        pool = f"{worker.pool_cls.__module__}:{worker.pool_cls.__name__}"
        if pool != POOL:
            # A wrong command line gets a sentence and no traceback.
            raise SystemExit(
                f"a worker of llamactl needs --pool threads, not {pool}: one process must own the"
                " backends, and its tasks must reach their supervisor"
            )
        self._supervisor: Supervisor | None = None

    def start(self, worker: Any) -> None:
        reset_ignored_signals()
        config = current()
        self._supervisor = Supervisor(
            config.local_node,
            config,
            key_for=_key_for,
            heartbeat=ParentHeartbeat.of_environment(),
        )
        self._supervisor.start()

    def stop(self, worker: Any) -> None:
        """Stop on a warm shutdown: SIGTERM, SIGINT."""
        self._end(quickly=False)

    def terminate(self, worker: Any) -> None:
        """Stop on a cold shutdown: SIGQUIT, or a second SIGTERM."""
        self._end(quickly=True)

    def _end(self, *, quickly: bool) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.stop(quickly=quickly)


def _key_for(instance_id: int) -> str:
    return backend_key(instance_id, settings.SECRET_KEY)
