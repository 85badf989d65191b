"""Id of a launch: one process of an instance, from its start to its end."""

from __future__ import annotations

import uuid

_HAS_OWN_KEY = "k2-"
"""Prefix of the ids whose launch has a key of its own. A backend of an earlier release, which a
worker of this one adopts, has an id without the prefix and the key of its instance."""


def new_launch_id() -> str:
    """Return an id that no other launch has."""
    return _HAS_OWN_KEY + uuid.uuid4().hex


def key_part(launch_id: str) -> str:
    """Return the part of the key's derivation that belongs to the launch; empty without one."""
    return launch_id if launch_id.startswith(_HAS_OWN_KEY) else ""
