"""Celery tasks of the instances: the wake-up call of a node's supervisor."""

from __future__ import annotations

import logging

from celery import shared_task
from kombu.exceptions import OperationalError

from llamactl.celery import node_queue

logger = logging.getLogger(__name__)

WAKE_EXPIRES_SECONDS = 30


@shared_task(name="instances.wake", ignore_result=True)
def wake() -> None:
    """Make this worker's supervisor look at its rows now instead of at its next tick."""
    from instances.supervisor import running_supervisor

    supervisor = running_supervisor()
    if supervisor is not None:
        supervisor.wake()


def wake_node(node: str) -> None:
    """Wake the supervisor of ``node``; a call that is lost costs at most one tick."""
    try:
        wake.apply_async(
            queue=node_queue(node), expires=WAKE_EXPIRES_SECONDS, retry=False, ignore_result=True
        )
    except OperationalError as error:
        logger.warning("wake-up of node %s not sent (its own tick will do): %s", node, error)
