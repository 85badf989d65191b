"""The operations on nodes: they are looked at here, and configured in llamactl.yaml."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from llamactl.api.views import ApiViewSet
from llamactl.config import current
from nodes.api import schema
from nodes.directory import known_nodes, node_address


class NodeViewSet(ApiViewSet):
    # Not "list", which would be taken for an array in the schema: it is a map.
    @schema.list_nodes
    def directory(self, request: Request) -> Response:
        nodes = known_nodes(current())
        return Response({name: {"address": address} for name, address in nodes.items()})

    @schema.show_node
    def retrieve(self, request: Request, name: str) -> Response:
        return Response({"address": node_address(name, current())})
