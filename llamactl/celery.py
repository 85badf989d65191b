"""The Celery app: one queue for each node, JSON only, tasks that only wake a worker."""

from __future__ import annotations

import logging
import os

from celery import Celery, signals

from llamactl.config import current
from llamactl.config.announcement import announce_warnings

logger = logging.getLogger(__name__)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llamactl.settings")

app = Celery("llamactl")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


# A listener keeps Celery from configuring logging, which Django has done (settings.LOGGING).
signals.setup_logging.connect(lambda **_: None, weak=False)


@signals.worker_init.connect
def _announce_warnings(**_: object) -> None:
    """Log the configuration's warnings in a worker that ``manage.py run`` did not start."""
    announce_warnings(current(), logger.warning)


app.steps["worker"].add("instances.supervisor.bootstep:SupervisorStep")


def node_queue(node: str) -> str:
    """Return the queue of the worker of ``node``."""
    return f"node.{node}"
