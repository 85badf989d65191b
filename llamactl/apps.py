from __future__ import annotations

from django.apps import AppConfig


class LlamactlConfig(AppConfig):
    name = "llamactl"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the admin's pages of users and groups.

        Django's autodiscovery imports ``llamactl.admin``, which is the pages' base and theme. This
        import waits for the models, so it can't stand at the top.
        """
        from llamactl.console import admin  # noqa: F401
