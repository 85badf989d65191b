"""What is executed for an instance, with which arguments and which environment?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from instances.backends.base import LOOPBACK, Backend
from instances.backends.docker import container_name, run_command
from instances.backends.registry import backend_for
from instances.backends.values import shown
from instances.errors import BackendStartFailed
from instances.options import InstanceOptions
from llamactl.config import AppConfig
from llamactl.config.schema import BackendConfig, DockerConfig


class ExecutableNotFound(BackendStartFailed):
    """The program to start is not there, or is no program."""

    def __init__(self, details: str) -> None:
        super().__init__(details, reason="executable_not_found")


@dataclass(frozen=True)
class Launch:
    """A process to start."""

    argv: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    """What is added to the clean base environment. It has secrets; ``argv`` has none of ours."""
    container_name: str | None = None
    """For docker: the process is only docker's client, and this is what has to be stopped."""


def effective_api_key(options: InstanceOptions, derived_key: str) -> str:
    """The key that the backend of an instance asks for.

    The operator's own, if its options (in normal form) have one; else ``derived_key``.
    """
    return backend_for(options.backend_type).operator_key(options.backend_options) or derived_key


def build_launch(
    *,
    instance_name: str,
    options: InstanceOptions,
    config: BackendConfig,
    host: str,
    port: int,
    api_key: str,
    which: Callable[..., str | None] = shutil.which,
) -> Launch:
    """The process for an instance on this node.

    1. The environment: the config's, docker's (if used), the instance's, then the secrets that
       would otherwise be arguments. ``api_key`` is the derived key; with an empty one the backend
       asks for none, unless the operator chose one.
    2. The program: docker, else ``command_override``, else the config's command, else (if that is
       the default command and the backend has one) the backend's bundled program.
    3. The arguments: the config's (not for docker), then the options.

    ``which`` is called as ``shutil.which`` is, with ``path`` if the environment sets PATH.

    Raises ExecutableNotFound, InvalidBackendOptions.
    """
    backend = backend_for(options.backend_type)
    docker = _docker(options, config)
    environment = dict(config.environment)
    if docker is not None:
        environment.update(docker.environment)
    environment.update(options.environment)
    environment.update(backend.secret_environment(options.backend_options))
    if key := effective_api_key(options, api_key):
        environment.update(backend.key_environment(key))
    launched = backend.launch_options(
        options.backend_options, instance_name=instance_name, host=host, port=port
    )
    if docker is not None:
        name = container_name(instance_name, port)
        command = run_command(
            find_docker(backend, which),
            docker_args=docker.args,
            variables=environment,
            name=name,
            image=docker.image,
            args=backend.build_args(launched, docker=True),
        )
        return Launch(tuple(command), environment, name)
    command = find_program(options, config, which=which)
    return Launch((*command, *config.args, *backend.build_args(launched)), environment)


def find_program(
    options: InstanceOptions,
    config: BackendConfig,
    *,
    which: Callable[..., str | None] = shutil.which,
) -> list[str]:
    """The program that is started for an instance outside docker, without any argument of ours.

    It is looked for on the PATH that the process will have. Raises ExecutableNotFound.
    """
    backend = backend_for(options.backend_type)
    find = _Finder(which, (config.environment | options.environment).get("PATH"))
    if options.command_override:
        return [find.override(options.command_override)]
    return find.configured(backend, config.command)


def find_docker(backend: Backend, which: Callable[..., str | None] = shutil.which) -> str:
    """Docker's client. Raises ExecutableNotFound."""
    # Found on our own PATH: the instance's is meant for inside the container.
    if found := which("docker"):
        return found
    raise ExecutableNotFound(
        f"docker was not found; install it, or set docker_enabled of the instance or"
        f" backends.{backend.config_name}.docker.enabled to false"
    )


def runs_in_docker(options: InstanceOptions, config: BackendConfig) -> bool:
    """Whether an instance with these options is started in a container."""
    return _docker(options, config) is not None


def _docker(options: InstanceOptions, config: BackendConfig) -> DockerConfig | None:
    """The docker settings, if the instance is to run in a container."""
    if config.docker is None:
        return None
    enabled = config.docker.enabled if options.docker_enabled is None else options.docker_enabled
    return config.docker if enabled else None


class _Finder:
    """Finds programs, on the PATH that the process will have."""

    def __init__(self, which: Callable[..., str | None], path: str | None) -> None:
        self._which = which
        self._path = path

    def _find(self, command: str) -> str | None:
        # One name or path: no shell and no arguments, so a blank is part of the path.
        expanded = os.path.expanduser(command)
        if self._path is None:
            return self._which(expanded)
        return self._which(expanded, path=self._path)

    def override(self, command: str) -> str:
        if found := self._find(command):
            return found
        raise ExecutableNotFound(
            f"command_override {shown(command)} was not found or is not executable; give the path"
            " of one program (arguments belong into backend_options)"
        )

    def configured(self, backend: Backend, command: str) -> list[str]:
        if found := self._find(command):
            return [found]
        bundled = backend.bundled_command
        if bundled is not None and command == backend.default_command:
            return list(bundled)
        raise ExecutableNotFound(
            f"{shown(command)} was not found or is not executable; {backend.install_hint}, or set"
            f" backends.{backend.config_name}.command to the path of the program"
        )


def launch_for(
    name: str,
    options: InstanceOptions,
    port: int,
    config: AppConfig,
    derived_key: str,
    *,
    which: Callable[..., str | None] = shutil.which,
) -> Launch:
    """What is started for an instance of this node with these options.

    Raises ExecutableNotFound, InvalidBackendOptions.
    """
    return build_launch(
        instance_name=name,
        options=options,
        config=backend_for(options.backend_type).config_section(config),
        host=LOOPBACK,
        port=port,
        api_key=derived_key,
        which=which,
    )


def executed(launch: Launch) -> tuple[str, ...]:
    """The arguments as the system gets them.

    The working directory is ours; a program that was named relative to the worker's is meant there.
    """
    return (os.path.abspath(launch.argv[0]), *launch.argv[1:])


def working_directory(options: InstanceOptions, config: AppConfig) -> Path:
    """Where it is started, and what relative paths in its options are relative to."""
    return Path(options.working_directory or config.data_dir)
