"""Wake-up of a node's supervisor, sent by the name of its task.

The web side sends the task without importing it: ``instances.tasks`` imports the supervisor.
"""

from __future__ import annotations

import logging

from kombu.exceptions import OperationalError

from llamactl.celery import app, node_queue

logger = logging.getLogger(__name__)

WAKE_TASK = "instances.wake"
WAKE_EXPIRES_SECONDS = 30


def wake_node(node: str) -> None:
    """Wake the supervisor of ``node``; a lost wake-up costs at most one tick."""
    try:
        app.send_task(
            WAKE_TASK,
            queue=node_queue(node),
            expires=WAKE_EXPIRES_SECONDS,
            retry=False,
            ignore_result=True,
        )
    except OperationalError as error:
        logger.warning("wake-up of node %s not sent (its own tick will do): %s", node, error)
