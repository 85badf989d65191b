"""Checks of an instance's options by the node that would run the instance."""

from __future__ import annotations

from instances.options import InstanceOptions
from instances.preflight.findings import PreflightFinding
from llamactl.config import AppConfig
from nodes.agent import agent_for


def node_of(options: InstanceOptions, config: AppConfig) -> str:
    """Return the name of the node that runs an instance with these options."""
    return config.local_node if config.local_node in options.nodes else options.nodes[0]


def check_on_node(options: InstanceOptions, config: AppConfig) -> list[PreflightFinding]:
    """Return the findings of the instance's node, errors first."""
    documents = agent_for(node_of(options, config)).check_options(options.to_document())
    return [PreflightFinding.from_document(document) for document in documents]
