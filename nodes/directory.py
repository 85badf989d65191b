"""Which nodes there are, and where they are reached."""

from __future__ import annotations

import re

from llamactl.config import AppConfig
from llamactl.config.types import NAME_PATTERN
from nodes.errors import InvalidNodeName, NodeNotFound
from nodes.models import Node


def known_nodes(config: AppConfig) -> dict[str, str]:
    """Name → address, by name: the configured nodes and the workers that have reported.

    The local node's address is empty. Where both know an address, the configured one counts.
    """
    addresses = dict(Node.objects.values_list("name", "address"))
    for name, node in config.nodes.items():
        addresses[name] = node.address or addresses.get(name, "")
    return dict(sorted(addresses.items()))


def node_address(name: str, config: AppConfig) -> str:
    """The address of one node. Raises InvalidNodeName or NodeNotFound."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidNodeName(name)
    # Looked up here and not in the database, which needn't see whatever text a path holds.
    addresses = known_nodes(config)
    if name not in addresses:
        raise NodeNotFound(name)
    return addresses[name]
