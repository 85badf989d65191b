"""Celery bootstep that starts and stops the supervisor with the worker.

A step of the worker and not of its connection to the broker: the supervisor starts before there is
a connection, and runs on while the broker is away.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from celery.platforms import EX_OK
from celery.worker import state
from django.conf import settings

from instances.launch_id import key_part
from instances.supervisor.process.pidfd import reset_ignored_signals
from instances.supervisor.supervisor import Supervisor
from keys.secrets import backend_key
from llamactl.config import current
from llamactl.core.parent_heartbeat import ParentHeartbeat

logger = logging.getLogger(__name__)

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
        """Stop on a warm shutdown: SIGTERM, SIGINT, or an error of the worker."""
        self._end(quickly=False, has_failed=_has_failed(worker))

    def terminate(self, worker: Any) -> None:
        """Stop on a cold shutdown: SIGQUIT, or a second SIGTERM."""
        self._end(quickly=True, has_failed=_has_failed(worker))

    def _end(self, *, quickly: bool, has_failed: bool) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        if has_failed:
            logger.error("the worker ends by an error; its backends run on for the next worker")
        supervisor.stop(quickly=quickly, keep_backends=has_failed)


def _has_failed(worker: Any) -> bool:
    """Whether an error ends the worker, and neither a signal nor a remote command.

    No stop of the backends was requested then.
    """
    flags = (state.should_stop, state.should_terminate)
    # 0 is a requested stop too, with its exit code.
    is_requested = any(flag is not None and flag is not False for flag in flags)
    return not is_requested and worker.exitcode != EX_OK


def _key_for(instance_id: int, launch_id: str) -> str:
    return backend_key(instance_id, key_part(launch_id), settings.SECRET_KEY)
