"""OpenAPI descriptions of the nodes' operations."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter

from llamactl.config.types import NAME_PATTERN
from llamactl.openapi import operation
from nodes.api.serializers import NodeSerializer
from nodes.errors import InvalidNodeName, NodeNotFound

_TAG = "Nodes"
_NAME = OpenApiParameter(
    "name",
    {"type": "string", "pattern": NAME_PATTERN},
    OpenApiParameter.PATH,
    description="Name of the node, as in GET /api/v1/nodes.",
    examples=[OpenApiExample("main", value="main")],
)
_REMOTE = {"address": "http://gpu-2.example:8080"}
_NODE_MAP: dict[str, Any] = {
    "type": "object",
    "description": "Name → node.",
    "additionalProperties": {
        "type": "object",
        "properties": {
            "address": {
                "type": "string",
                "description": "Address of the node; empty for the local node.",
            }
        },
        "required": ["address"],
    },
}

list_nodes = operation(
    _TAG,
    "List the nodes by name, the local one included",
    name="list_nodes",
    answer=_NODE_MAP,
    answers={"two nodes": {"gpu-2": _REMOTE, "main": {"address": ""}}},
)
show_node = operation(
    _TAG,
    "Show a node",
    name="show_node",
    parameters=[_NAME],
    answer=NodeSerializer,
    answers={"the local node": {"address": ""}, "another node": _REMOTE},
    errors=[InvalidNodeName("gpu 9"), NodeNotFound("gpu-9")],
)
