"""Wake-up of a node's supervisor, sent by the name of its task.

The web side sends the task without importing it: ``instances.tasks`` imports the supervisor.
"""

from __future__ import annotations

from llamactl.celery import app, node_queue
from llamactl.core.events import broker_messages

WAKE_TASK = "instances.wake"
WAKE_EXPIRES_SECONDS = 30


def wake_node(node: str) -> None:
    """Wake the supervisor of ``node``, from a thread; a lost wake-up costs at most one tick."""
    broker_messages.send((WAKE_TASK, node), lambda: _send(node))


def _send(node: str) -> None:
    app.send_task(
        WAKE_TASK,
        queue=node_queue(node),
        expires=WAKE_EXPIRES_SECONDS,
        retry=False,
        ignore_result=True,
    )
