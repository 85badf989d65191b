"""The operations on nodes: they are looked at here, and configured in llamactl.yaml."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from llamactl.config import current
from llamactl.endpoints import ApiViewSet
from llamactl.openapi import operation
from nodes.api.serializers import NodeSerializer
from nodes.directory import known_nodes, node_address

_TAG = "Nodes"
_NODE_MAP = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "properties": {"address": {"type": "string"}},
        "required": ["address"],
    },
}


class NodeViewSet(ApiViewSet):
    @operation(_TAG, "List the nodes by name, the local one included", answer=_NODE_MAP)
    def list(self, request: Request) -> Response:
        nodes = known_nodes(current())
        return Response({name: {"address": address} for name, address in nodes.items()})

    @operation(_TAG, "Show a node", answer=NodeSerializer, errors=[400, 404])
    def retrieve(self, request: Request, name: str) -> Response:
        return Response({"address": node_address(name, current())})
