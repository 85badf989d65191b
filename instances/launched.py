"""Parts of a launch: a change of one of them takes a new process.

Argv (Docker's included), environment and working directory are given to a process at its start, and
so are the options with the mark ``AtLaunch``. Every other option takes effect on the running one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from instances.backends.registry import backend_for
from instances.launch import runs_in_docker
from instances.node_checks import node_of
from instances.options import InstanceOptions
from llamactl.config import AppConfig
from llamactl.core.errors import LlamactlError
from nodes.agent import agent_for, has_own_agent


@dataclass(frozen=True)
class Launched:
    """Options and port that a process is, or would be, launched with."""

    options: InstanceOptions
    port: int

    def differs_from(self, other: Launched, name: str, config: AppConfig) -> bool:
        """Return whether the instance ``name`` needs a new process to get from one to the other.

        Equal options launch the same, and so do most options that say the same in other words
        (``docker_enabled: false`` and the config's default): the commands are compared too.
        """
        if self._written() == other._written():
            return False
        node = node_of(self.options, config)
        if node != config.local_node and not has_own_agent(node):
            return True  # the config that decides over there is not known here
        try:
            return self._effective(name, node, config) != other._effective(name, node, config)
        except LlamactlError:
            return True  # saved by an earlier release, and refused by this one

    def _written(self) -> str:
        """Return the options and the port as text; the order of names does not count."""
        document = self.options.to_document()
        chosen = {option: document.get(option) for option in self.options.at_launch()}
        backend_options = {**self.options.backend_options, "port": self.port}
        return json.dumps(chosen | {"backend_options": backend_options}, sort_keys=True)

    def _effective(self, name: str, node: str, config: AppConfig) -> object:
        command = agent_for(node).start_command(name, self.options.to_document(), self.port)
        section = backend_for(self.options.backend_type).config_section(config)
        in_docker = runs_in_docker(self.options, section)
        directory = None if in_docker else command.working_directory
        others = {
            option: getattr(self.options, option)
            for option, mark in self.options.at_launch().items()
            if not mark.in_command and (mark.in_docker or not in_docker)
        }
        return command.argv, command.environment, directory, others
