"""Help, version and devices of a backend's program."""

from __future__ import annotations

from instances.backends.base import LOOPBACK
from instances.backends.environment import backend_environment
from instances.backends.registry import backend_for
from instances.backends.run_program import CommandFailed, output_of
from instances.launch import ExecutableNotFound, build_launch
from instances.options import InstanceOptions
from llamactl.config import AppConfig


def program_output(backend_type: str, flag: str, config: AppConfig) -> str:
    """Run the program of an instance without options, with ``flag`` as its last argument.

    The program is started as for an instance: with the config's command or docker, arguments and
    environment. So a mistake in the configuration shows here as it would at a start.

    Raises CommandFailed.
    """
    backend = backend_for(backend_type)
    try:
        launch = build_launch(
            instance_name="program-info",
            options=InstanceOptions.parse({"backend_type": backend_type}, config),
            config=backend.config_section(config),
            host=LOOPBACK,
            port=config.instances.port_range[0],
            api_key="",
        )
    except ExecutableNotFound as error:
        raise CommandFailed(error.details) from error
    environment = backend_environment(launch.environment)
    return output_of((*launch.argv, flag), environment=environment)
