"""Observed state, written by a test instead of the supervisor."""

from __future__ import annotations

from typing import Any

from django.db.models import F

from instances.models import Instance
from instances.states import Status

FAILURE = {
    "reason": "crashed",
    "details": "the process ended with exit code 3",
    "exit_code": 3,
    "log_tail": ["loading model", "out of memory"],
}


def observe(name: str, status: Status, **columns: Any) -> None:
    """Write a status as if the supervisor had acted on the last generation."""
    Instance.objects.filter(name=name).update(
        status=status, observed_generation=F("generation"), **columns
    )
