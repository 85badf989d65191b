"""Revisions: how a process that missed every event still learns that something changed."""

from __future__ import annotations

from django.db import models
from django.db.models import F


class Topic(models.TextChoices):
    INSTANCES = "instances", "instances"
    KEYS = "keys", "keys"


class Revision(models.Model):
    """One row a topic; its number grows with each committed change of that topic."""

    topic = models.CharField(max_length=20, primary_key=True, choices=Topic.choices)
    number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.topic} {self.number}"

    @classmethod
    def bump(cls, topic: Topic) -> None:
        """Count a change; call it inside the transaction that makes the change."""
        if not cls.objects.filter(topic=topic).update(number=F("number") + 1):
            # The migration makes the rows, so this is a database restored without them.
            cls.objects.get_or_create(topic=topic, defaults={"number": 1})

    @classmethod
    def numbers(cls) -> dict[str, int]:
        """Topic → number, in one small query: the web process's one-second check."""
        return dict(cls.objects.values_list("topic", "number"))
