"""Storage of the facts that a backend has told about its model."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import transaction

from instances.model_info import launch_digest
from instances.models import Instance
from llamactl.core.events import announce
from llamactl.models import Topic


def remember_model(pk: int, generation: int, facts: Mapping[str, object]) -> None:
    """Store the facts, if the process that told them is still the instance's last one.

    A change of the options requests a new process, so its options are in the row.
    """
    with transaction.atomic():
        rows = Instance.objects.filter(pk=pk, generation=generation, observed_generation=generation)
        instance = rows.only("name", "options", "model_info").first()
        if instance is None:
            return
        document = {"launch": launch_digest(instance.options), **facts}
        if document != instance.model_info and rows.update(model_info=document):
            announce(Topic.INSTANCES, instance.name)
