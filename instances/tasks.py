"""Celery tasks of a node's worker. Only the worker imports this module."""

from __future__ import annotations

from celery import shared_task

from instances.supervisor import running_supervisor
from instances.wake import WAKE_TASK


@shared_task(name=WAKE_TASK, ignore_result=True)
def wake() -> None:
    """Refresh the supervisor's rows now instead of at its next tick."""
    supervisor = running_supervisor()
    if supervisor is not None:
        supervisor.wake()
