"""Directory of the known nodes and their addresses."""

from __future__ import annotations

import re

from llamactl.config import AppConfig
from llamactl.config.types import NAME_PATTERN
from nodes.errors import InvalidNodeName, NodeNotFound
from nodes.models import Node


def known_nodes(config: AppConfig) -> dict[str, str]:
    """Return name → address, sorted by name, of configured nodes and nodes with a worker.

    The local node's address is empty. An address in the config wins over one in the database.
    """
    addresses = dict(Node.objects.values_list("name", "address"))
    for name, node in config.nodes.items():
        addresses[name] = node.address or addresses.get(name, "")
    return dict(sorted(addresses.items()))


def node_address(name: str, config: AppConfig) -> str:
    """Return the address of one node. Raises InvalidNodeName or NodeNotFound."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidNodeName(name)
    # Searched in the dict: the database need not see the arbitrary text of a path.
    addresses = known_nodes(config)
    if name not in addresses:
        raise NodeNotFound(name)
    return addresses[name]
