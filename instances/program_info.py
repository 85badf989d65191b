"""What a backend's program says of itself: help, version, devices."""

from __future__ import annotations

from instances.backends import backend_for
from instances.backends.base import LOOPBACK
from instances.backends.environment import backend_environment
from instances.backends.run_program import CommandFailed, output_of
from instances.launch import ExecutableNotFound, build_launch
from instances.options import parse_options
from llamactl.config import AppConfig


def ask_program(backend_type: str, flag: str, config: AppConfig) -> str:
    """What an instance without options would print if it were started with ``flag``.

    It is started as an instance is (config's command or docker, arguments, environment), so what
    is wrong with the configuration shows here as it would there. Raises CommandFailed.
    """
    backend = backend_for(backend_type)
    try:
        launch = build_launch(
            instance_name="inquiry",
            options=parse_options({"backend_type": backend_type}, config),
            config=backend.config_section(config),
            host=LOOPBACK,
            port=config.instances.port_range[0],
            api_key="",
        )
    except ExecutableNotFound as error:
        raise CommandFailed(error.details) from error
    environment = backend_environment(launch.environment)
    return output_of((*launch.argv, flag), environment=environment)
