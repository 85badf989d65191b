"""The app of the project itself."""

from __future__ import annotations

from django.apps import AppConfig

from llamactl.celery import app as celery_app
from llamactl.core.thread_connections import close_at_thread_end

__all__ = ["LlamactlConfig", "celery_app"]  # tasks of the apps belong to the Celery app


class LlamactlConfig(AppConfig):
    name = "llamactl"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Close connections with their threads, and register the admin's pages of users and groups.

        Django's autodiscovery imports ``llamactl.admin``, which holds the pages' base and theme.
        The import here needs loaded models, so it can't stand at the top.
        """
        from llamactl.console import admin  # noqa: F401

        close_at_thread_end()
