"""Checks of an instance's options by the node that would run the instance."""

from __future__ import annotations

from instances.errors import InvalidInstance
from instances.options import InstanceOptions
from instances.preflight.findings import PreflightFinding
from llamactl.config import AppConfig
from nodes.agent import agent_for, has_own_agent
from nodes.models import Node


def node_of(options: InstanceOptions, config: AppConfig) -> str:
    """Return the name of the node that runs an instance with these options."""
    return config.local_node if config.local_node in options.nodes else options.nodes[0]


def require_worker(node: Node, config: AppConfig) -> None:
    """Raise InvalidInstance for a node that no worker has ever reported for.

    An instance there would be starting for ever. A worker that is down for a while is no reason:
    its node starts the instance when the worker is back.
    """
    if node.heartbeat_at is not None or node.kind != Node.Kind.WORKER:
        return
    if node.name != config.local_node and not has_own_agent(node.name):
        raise InvalidInstance(
            f"nodes: no worker of node {node.name!r} has reported yet; start its worker first"
            f" (`manage.py run --only worker` there, with local_node: {node.name}), or use"
            f" {config.local_node}"
        )


def check_on_node(options: InstanceOptions, config: AppConfig) -> list[PreflightFinding]:
    """Return the findings of the instance's node, errors first."""
    documents = agent_for(node_of(options, config)).check_options(options.to_document())
    return [PreflightFinding.from_document(document) for document in documents]
