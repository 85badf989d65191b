"""The Celery app: one queue a node, JSON only, tasks that are mere wake-ups."""

from __future__ import annotations

import os

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llamactl.settings")

app = Celery("llamactl")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


# Having a listener keeps Celery from setting up logging: Django has done so (settings.LOGGING).
signals.setup_logging.connect(lambda **_: None, weak=False)
app.steps["worker"].add("instances.supervisor.bootstep:SupervisorStep")


def node_queue(node: str) -> str:
    """The queue that the worker of ``node``, and nobody else, listens to."""
    return f"node.{node}"
