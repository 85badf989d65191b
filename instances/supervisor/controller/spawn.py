"""Spawn of an instance's process: its command, environment, log and limits."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from django.utils import timezone

from instances.backends.base import LOOPBACK
from instances.backends.environment import backend_environment
from instances.backends.failure_signs import FailureReason
from instances.backends.registry import backend_for
from instances.launch import Launch, executed, launch_for
from instances.limits import ResourceLimits
from instances.logs import files
from instances.options import InstanceOptions
from instances.supervisor.controller.restart_policy import RestartPolicy
from instances.supervisor.failure import (
    TAIL_BYTES,
    TAIL_LINES,
    Failure,
    directory_failure,
    log_failure,
    refusal_failure,
    spawn_failure,
)
from instances.supervisor.process.markers import Marker
from instances.supervisor.process.pidfd import Process, spawn
from instances.supervisor.process.resource_limits import CannotApplyLimits, spawn_limited
from instances.supervisor.state.rows import Row
from llamactl.config import AppConfig
from llamactl.core.errors import LlamactlError
from llamactl.masking import mask_command

logger = logging.getLogger(__name__)


class LaunchFailed(Exception):
    """The process could not be started, and nothing is left of the attempt."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.details)
        self.failure = failure


@dataclass(frozen=True)
class Plan:
    """The command, log, address and limits of a start that has not happened yet."""

    instance: str
    launch: Launch
    log: Path
    bind_host: str
    """Address at which the port must be free."""
    directory: str = ""
    """Working directory; empty for the data directory."""
    limits: ResourceLimits = field(default_factory=ResourceLimits)


@dataclass(frozen=True)
class Endpoint:
    """Address for the health check of a backend."""

    origin: str
    health_paths: tuple[str, ...]
    bind_host: str
    """Address at which the backend listens, of this port."""
    port: int


def parse(row: Row) -> InstanceOptions:
    """Parse the row's options. Raises LaunchFailed for an unreadable document."""
    try:
        return InstanceOptions.from_document(row.options)
    except (KeyError, TypeError, ValueError, LlamactlError) as error:
        raise LaunchFailed(
            Failure(FailureReason.BAD_FLAG, f"the saved options can't be read: {error!r}")
        ) from error


def endpoint(row: Row) -> Endpoint:
    """Return the endpoint of the backend of ``row`` on this node. Raises LaunchFailed."""
    options = parse(row)
    backend = backend_for(options.backend_type)
    host = backend.connect_host(options.backend_options)
    origin = f"http://{f'[{host}]' if ':' in host else host}:{row.port}"
    return Endpoint(origin, backend.health_paths, _bind_host(options), row.port)


def _bind_host(options: InstanceOptions) -> str:
    return str(options.backend_options.get("host") or LOOPBACK)


def plan(row: Row, config: AppConfig, derived_key: str) -> Plan:
    """Plan the start of ``row``. Raises LaunchFailed."""
    options = parse(row)
    try:
        launch = launch_for(row.name, options, row.port, config, derived_key)
    except LlamactlError as error:
        raise LaunchFailed(refusal_failure(error)) from error
    bind_host = _bind_host(options)
    directory, limits = options.working_directory, options.limits
    if launch.container_name and (directory or limits.to_document()):
        # Limits and directory would apply to the docker client, not to the container.
        logger.warning(
            "limits and working_directory do nothing for a container; see docker's arguments",
            extra={"instance": row.name},
        )
        directory, limits = "", ResourceLimits()
    log = files.log_path(config, row.name)
    return Plan(row.name, launch, log, bind_host, directory, limits)


def carry_out(plan: Plan, config: AppConfig, marker: Marker) -> Process:
    """Start the process with the marker, and its container's name. Raises LaunchFailed."""
    launch = plan.launch
    if plan.directory and not os.path.isdir(plan.directory):
        details = f"working_directory {plan.directory} is no directory on this node"
        raise LaunchFailed(Failure(FailureReason.BAD_FLAG, details))
    _write_preset(launch)
    log = _open_log(plan, config)
    try:
        _write_started(log, plan.instance)
        marker = replace(marker, container=launch.container_name or "")
        process = _spawn(plan, Path(plan.directory or config.data_dir), marker, log)
    finally:
        os.close(log)
    logger.info(
        "process %d: %s", process.pid, mask_command(launch.argv), extra={"instance": plan.instance}
    )
    return process


def _write_preset(launch: Launch) -> None:
    """Write the model presets that the program reads. Raises LaunchFailed."""
    if launch.preset is None:
        return
    try:
        launch.preset.write()
    except OSError as error:
        details = f"{launch.preset.path} can't be written"
        raise LaunchFailed(spawn_failure(details, error)) from error


def _open_log(plan: Plan, config: AppConfig) -> int:
    """Open the instance's log. Raises LaunchFailed."""
    try:
        return files.open_log(plan.log, create_directory=config.instances.auto_create_dirs)
    except OSError as error:
        raise LaunchFailed(log_failure(plan.log, error)) from error


def _spawn(plan: Plan, directory: Path, marker: Marker, log: int) -> Process:
    """Start the process under its limits. Raises LaunchFailed."""
    argv = executed(plan.launch)
    try:
        return spawn_limited(
            plan.limits,
            lambda: spawn(
                argv,
                environment=backend_environment(plan.launch.environment),
                marker=marker,
                directory=directory,
                log=log,
            ),
        )
    except CannotApplyLimits as error:
        raise LaunchFailed(Failure(FailureReason.BAD_FLAG, str(error))) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
        if isinstance(error, OSError) and error.filename == str(directory):
            raise LaunchFailed(directory_failure(directory, error)) from error
        raise LaunchFailed(spawn_failure(f"{argv[0]} can't be started", error)) from error


def _write_started(log: int, name: str) -> None:
    """Mark the start of the launch in the log; a full disk must not prevent the launch."""
    try:
        files.write_started(log, name, timezone.localtime())
    except OSError as error:
        logger.warning("the log can't be written to: %s", error, extra={"instance": name})


def close_log(name: str, config: AppConfig) -> list[str]:
    """Mark the end of a launch in the log; returns the launch's last lines."""
    path = files.log_path(config, name)
    found: list[str] = []
    try:
        found = files.tail_of_launch(path, name, TAIL_LINES, max_bytes=TAIL_BYTES)
        files.write_stopped(path, name, timezone.localtime())
    except OSError as error:
        logger.warning("the log can't be used: %s", error, extra={"instance": name})
    return found


def restart_policy(row: Row) -> RestartPolicy:
    """Return the restart options; no restarts, if the options can't be read."""
    try:
        options = parse(row)
    except LaunchFailed:
        return RestartPolicy(auto_restart=False, max_restarts=0, delay_seconds=0.0)
    return RestartPolicy(options.auto_restart, options.max_restarts, options.restart_delay)


def instance_marker(instance_id: int, name: str) -> str:
    """Return the marker of an instance's processes: a name alone may be given again."""
    return f"{instance_id}:{name}"
