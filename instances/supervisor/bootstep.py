"""How does the supervisor live and die with the Celery worker?

As a step of the worker itself, not of its connection to the broker: it starts before there is a
connection and goes on while there is none.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from django.conf import settings

from instances.supervisor.process.pidfd import heed_ignored_signals
from instances.supervisor.supervisor import Supervisor
from llamactl.config import current

POOL = "celery.concurrency.thread:TaskPool"


class SupervisorStep(bootsteps.StartStopStep):
    """Registered on ``app.steps["worker"]``. Celery calls all of this in the main thread."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        pool = f"{worker.pool_cls.__module__}:{worker.pool_cls.__name__}"
        if pool != POOL:
            # A mistake on the command line: a sentence, and no traceback.
            raise SystemExit(
                f"a worker of llamactl needs --pool threads, not {pool}: one process has to own"
                " the backends, and its tasks have to reach their supervisor"
            )
        self._supervisor: Supervisor | None = None

    def start(self, worker: Any) -> None:
        heed_ignored_signals()
        config = current()
        self._supervisor = Supervisor(config.local_node, config, key_for=_key_for)
        self._supervisor.start()

    def stop(self, worker: Any) -> None:
        """A warm shutdown: SIGTERM, SIGINT."""
        self._end(quickly=False)

    def terminate(self, worker: Any) -> None:
        """A cold one: SIGQUIT, or a second SIGTERM."""
        self._end(quickly=True)

    def _end(self, *, quickly: bool) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.stop(quickly=quickly)


def _key_for(instance_id: int) -> str:
    # Imported here alone: keys know of instances, and not the other way round.
    from keys.secrets import backend_key

    return backend_key(instance_id, settings.SECRET_KEY)
