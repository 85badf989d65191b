"""Revisions: counts of changes, for a process that missed every change event."""

from __future__ import annotations

from django.db import models
from django.db.models import F


class Topic(models.TextChoices):
    INSTANCES = "instances", "instances"
    KEYS = "keys", "keys"


class Revision(models.Model):
    """One row for each topic; its number grows with each committed change of the topic."""

    topic = models.CharField(max_length=20, primary_key=True, choices=Topic.choices)
    number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.topic} {self.number}"

    @classmethod
    def bump(cls, topic: Topic) -> None:
        """Count a change, inside the transaction of the change."""
        if not cls.objects.filter(topic=topic).update(number=F("number") + 1):
            # The migration creates the rows; a restored database may lack them.
            cls.objects.get_or_create(topic=topic, defaults={"number": 1})

    @classmethod
    def numbers(cls) -> dict[str, int]:
        """Return topic → number, in one small query: a web process runs it once a second."""
        return dict(cls.objects.values_list("topic", "number"))
