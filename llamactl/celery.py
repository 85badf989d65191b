"""The Celery app: one queue for each node, JSON only, tasks that only wake a worker."""

from __future__ import annotations

import os

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llamactl.settings")

app = Celery("llamactl")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


# A listener keeps Celery from configuring logging, which Django has done (settings.LOGGING).
signals.setup_logging.connect(lambda **_: None, weak=False)
app.steps["worker"].add("instances.supervisor.bootstep:SupervisorStep")


def node_queue(node: str) -> str:
    """Return the queue of the worker of ``node``."""
    return f"node.{node}"
