"""Nodes as JSON."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class NodeSerializer(serializers.Serializer[Any]):
    """A machine that runs instances."""

    address = serializers.CharField(
        allow_blank=True, help_text="Where it is reached; empty for the local node."
    )
