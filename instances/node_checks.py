"""Checks of an instance's options by the node that would run the instance."""

from __future__ import annotations

from instances.errors import InvalidInstance
from instances.models import Instance
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


def require_node(options: InstanceOptions, config: AppConfig) -> None:
    """Raise InvalidInstance if no instance with these options can be made for want of a worker."""
    name = node_of(options, config)
    require_worker(Node.objects.filter(name=name).first() or Node(name=name), config)


def check_on_node(
    options: InstanceOptions, config: AppConfig, *, saved: Instance | None
) -> list[PreflightFinding]:
    """Return the findings of the instance's node, errors first.

    ``saved`` is the instance as it is saved. A variable that the instance does not have yet loads
    no program's code: the operator may have pasted a foreign command without trusting it.
    """
    environment = {} if saved is None else saved.options.get("environment") or {}
    unsaved = [
        name for name, value in options.environment.items() if environment.get(name) != value
    ]
    agent = agent_for(node_of(options, config))
    documents = agent.check_options(options.to_document(), unsaved=unsaved)
    return [PreflightFinding.from_document(document) for document in documents]
