"""Django application of the instances."""

from __future__ import annotations

from django.apps import AppConfig

from nodes.agent import register_agent


class InstancesConfig(AppConfig):
    name = "instances"
    verbose_name = "Instances"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register this host's agent."""
        # Imported here: the agent's modules import models, which exist only once apps are loaded.
        from instances.local_agent import LocalAgent

        register_agent(LocalAgent())
