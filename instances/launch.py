"""Command and environment of an instance's process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from instances.backends import address
from instances.backends.base import LOOPBACK, Backend
from instances.backends.docker import container_name, further_args, labels_of, run_command
from instances.backends.registry import backend_for
from instances.backends.values import shown
from instances.errors import BackendStartFailed
from instances.installation import installation_id
from instances.options import InstanceOptions
from instances.preset_file import PresetFile, preset_path
from llamactl.config import AppConfig
from llamactl.config.schema import BackendConfig, DockerConfig

CONTAINER_PRESET = "/etc/llamactl/preset.ini"
"""Path of the presets inside a container."""


class ExecutableNotFound(BackendStartFailed):
    """The program to start does not exist or is not executable."""

    def __init__(self, details: str) -> None:
        super().__init__(details, reason="executable_not_found")


@dataclass(frozen=True)
class Launch:
    """Command and environment of a process to start."""

    argv: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    """Variables added to the clean base environment. They hold secrets; ``argv`` holds none of
    llamactl's."""
    container_name: str | None = None
    """For Docker. The process is only Docker's client; a stop has to stop this container."""
    preset: PresetFile | None = None
    """File that the program reads, to be written before the start."""


def effective_api_key(options: InstanceOptions, derived_key: str) -> str:
    """Return the API key that the backend of an instance requires.

    An operator's key in the options (in normal form) comes before ``derived_key``.
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
    preset_path: Path | None = None,
    which: Callable[..., str | None] = shutil.which,
) -> Launch:
    """Return the process for an instance on this node.

    1. The environment, see ``_environment``.
    2. The program: docker, or else the one of ``find_program``.
    3. The arguments: the config's (not for docker), then the options.

    ``api_key`` is the derived key; an empty key means no key, unless the operator chose one.
    ``preset_path`` is the file of the instance's model presets. ``which`` is called like
    ``shutil.which``, also with ``path``. Raises ExecutableNotFound, InvalidBackendOptions.
    """
    backend = backend_for(options.backend_type)
    docker = _docker(options, config)
    _check_addresses(backend, options, config, docker)
    environment = _environment(options, config, docker, api_key)
    launched = backend.launch_options(
        options.backend_options, instance_name=instance_name, host=host, port=port
    )
    preset = _preset(options, preset_path)
    if preset is not None:
        launched[backend.preset_option] = CONTAINER_PRESET if docker else str(preset.path)
    if docker is not None:
        name = container_name(installation_id(), instance_name, port)
        argv = _docker_argv(
            instance_name, name, options, docker, environment, launched, preset, which
        )
        return Launch(argv, environment, name, preset)
    command = find_program(options, config, which=which)
    argv = (*command, *config.args, *backend.build_args(launched))
    return Launch(argv, environment, preset=preset)


def _preset(options: InstanceOptions, path: Path | None) -> PresetFile | None:
    """Return the file of the instance's model presets, if there are any."""
    return PresetFile(path, options.preset_ini) if options.preset_ini and path else None


def _docker_argv(
    instance_name: str,
    name: str,
    options: InstanceOptions,
    docker: DockerConfig,
    environment: Mapping[str, str],
    launched: Mapping[str, object],
    preset: PresetFile | None,
    which: Callable[..., str | None],
) -> tuple[str, ...]:
    """Return the command of Docker's client that runs the instance in the container ``name``."""
    backend = backend_for(options.backend_type)
    mounts = ["-v", f"{preset.path}:{CONTAINER_PRESET}:ro"] if preset else []
    command = run_command(
        find_docker(backend, which),
        docker_args=[*docker.args, *further_args(docker.args, options.docker_args), *mounts],
        variables=environment,
        name=name,
        labels=labels_of(installation_id(), instance_name),
        image=options.docker_image or docker.image,
        args=backend.build_args(launched, docker=True),
    )
    return tuple(command)


def check_address(options: InstanceOptions, config: AppConfig) -> None:
    """Refuse what moves the backend's address away from http at its port.

    The config's part counts for an instance of this node alone: the config of another node may
    differ. Raises InvalidBackendOptions.
    """
    backend = backend_for(options.backend_type)
    if config.local_node in options.nodes:
        section = backend.config_section(config)
        _check_addresses(backend, options, section, _docker(options, section))
    else:
        _check_own_address(backend, options)


def _check_addresses(
    backend: Backend, options: InstanceOptions, config: BackendConfig, docker: DockerConfig | None
) -> None:
    _check_own_address(backend, options)
    _check_config_address(backend, config, docker)


def _check_own_address(backend: Backend, options: InstanceOptions) -> None:
    address.check_options(backend, options.backend_options)
    address.check_environment(backend, options.environment, "environment")
    address.check_arguments(backend, further_args((), options.docker_args), "docker_args")


def _check_config_address(
    backend: Backend, config: BackendConfig, docker: DockerConfig | None
) -> None:
    key = f"backends.{backend.config_name}"
    address.check_environment(backend, config.environment, f"{key}.environment")
    if docker is None:
        address.check_arguments(backend, config.args, f"{key}.args")
    else:
        address.check_environment(backend, docker.environment, f"{key}.docker.environment")
        address.check_arguments(backend, docker.args, f"{key}.docker.args")


def _environment(
    options: InstanceOptions, config: BackendConfig, docker: DockerConfig | None, api_key: str
) -> dict[str, str]:
    """Return the variables: config's, docker's (if used), instance's, secret arguments, API key.

    A later source overrides an earlier one.
    """
    backend = backend_for(options.backend_type)
    environment = dict(config.environment)
    if docker is not None:
        environment.update(docker.environment)
    environment.update(options.environment)
    environment.update(backend.secret_environment(options.backend_options))
    if key := effective_api_key(options, api_key):
        environment.update(backend.key_environment(key))
    return environment


def find_program(
    options: InstanceOptions,
    config: BackendConfig,
    *,
    which: Callable[..., str | None] = shutil.which,
) -> list[str]:
    """Return the program of an instance outside Docker, without the arguments of its options.

    ``command_override``, else the config's command, else (if that is the default command and the
    backend has one) the backend's bundled program. The program is searched on the PATH of the
    future process. Raises ExecutableNotFound.
    """
    backend = backend_for(options.backend_type)
    find = _Finder(which, (config.environment | options.environment).get("PATH"))
    if options.command_override:
        return [find.override(options.command_override)]
    return find.configured(backend, config.command)


def find_docker(backend: Backend, which: Callable[..., str | None] = shutil.which) -> str:
    """Return the path of Docker's client. Raises ExecutableNotFound."""
    # On the PATH of this process: the instance's PATH applies inside the container.
    if found := which("docker"):
        return found
    raise ExecutableNotFound(
        f"docker was not found; install it, or set docker_enabled of the instance or"
        f" backends.{backend.config_name}.docker.enabled to false"
    )


def runs_in_docker(options: InstanceOptions, config: BackendConfig) -> bool:
    """Return whether an instance with these options is started in a container."""
    return _docker(options, config) is not None


def _docker(options: InstanceOptions, config: BackendConfig) -> DockerConfig | None:
    """Return the Docker settings, or None if the instance runs outside a container."""
    if config.docker is None:
        return None
    enabled = config.docker.enabled if options.docker_enabled is None else options.docker_enabled
    return config.docker if enabled else None


class _Finder:
    """Search for programs on the PATH of the future process."""

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
    """Return the process for an instance of this node, with the config's section of its backend.

    Raises ExecutableNotFound, InvalidBackendOptions.
    """
    return build_launch(
        instance_name=name,
        options=options,
        config=backend_for(options.backend_type).config_section(config),
        host=LOOPBACK,
        port=port,
        api_key=derived_key,
        preset_path=preset_path(name, config),
        which=which,
    )


def executed(launch: Launch) -> tuple[str, ...]:
    """Return the arguments as the kernel gets them.

    A relative program is relative to the worker's directory, but the process starts in another one;
    so the program becomes absolute.
    """
    return (os.path.abspath(launch.argv[0]), *launch.argv[1:])


def working_directory(options: InstanceOptions, config: AppConfig) -> Path:
    """Return the directory that the process starts in; relative paths in options start there."""
    return Path(options.working_directory or config.data_dir)
