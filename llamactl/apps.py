from __future__ import annotations

from django.apps import AppConfig


class LlamactlConfig(AppConfig):
    name = "llamactl"
    default_auto_field = "django.db.models.BigAutoField"
