"""Read-only operations on nodes; llamactl.yaml configures them."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from llamactl.api.views import ApiViewSet
from llamactl.config import current
from llamactl.masking import mask_url
from nodes.api import schema
from nodes.directory import known_nodes, node_address


class NodeViewSet(ApiViewSet):
    """List and show nodes."""

    # Not "list": drf-spectacular describes an action of that name as an array, and this is a map.
    @schema.list_nodes
    def directory(self, request: Request) -> Response:
        nodes = known_nodes(current())
        return Response({name: {"address": mask_url(address)} for name, address in nodes.items()})

    @schema.show_node
    def retrieve(self, request: Request, name: str) -> Response:
        return Response({"address": mask_url(node_address(name, current()))})
