"""JSON shape of a node."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class NodeSerializer(serializers.Serializer[Any]):
    """A host that runs instances."""

    address = serializers.CharField(
        allow_blank=True, help_text="Address of the node; empty for the local node."
    )
