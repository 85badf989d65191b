"""Rights of a key on an instance: to start it, to evict another instance for it, to stop it.

A key that opens an instance may always send requests to it while it runs. ``can_start`` lets a
request start it (on-demand start, ``POST /models/load``), ``can_evict`` lets that start stop
another instance at a limit, and ``can_stop`` is for ``POST /models/unload``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keys.models import InferenceKey, KeyPermission


@dataclass(frozen=True)
class Rights:
    """The rights of one key on one instance."""

    can_start: bool = False
    can_evict: bool = False
    can_stop: bool = False


DEFAULT_RIGHTS = Rights(can_start=True, can_evict=True)
"""Where a document names instances alone (``instance_ids``), as clients of the Go program do."""


def rights_of(key: InferenceKey) -> dict[int, Rights]:
    """Return the rights of a key by instance id; empty for a key that opens all instances."""
    return {
        row.instance_id: Rights(row.can_start, row.can_evict, row.can_stop)
        for row in key.permissions.all()
    }


def replace_rights(key: InferenceKey, rights: Mapping[int, Rights]) -> None:
    """Let the key open these instances alone, with these rights."""
    key.permissions.exclude(instance_id__in=rights).delete()
    KeyPermission.objects.bulk_create(
        [
            KeyPermission(
                key=key,
                instance_id=instance_id,
                can_start=each.can_start,
                can_evict=each.can_evict,
                can_stop=each.can_stop,
            )
            for instance_id, each in rights.items()
        ],
        update_conflicts=True,
        unique_fields=["key", "instance"],
        update_fields=["can_start", "can_evict", "can_stop"],
    )
