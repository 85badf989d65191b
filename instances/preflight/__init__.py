"""Do an instance's options fit what is really there: its program, and the files they name?

Asked before (or when) options are saved, by the API and the admin; never on a start, which finds
out for itself. Instances of other nodes and in containers are left alone: what is there can't be
seen from here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from instances.backends import Backend, backend_for
from instances.launch import (
    ExecutableNotFound,
    find_docker,
    find_program,
    runs_in_docker,
    working_directory,
)
from instances.options import InstanceOptions
from instances.preflight.bounded_threads import TooBusy, begin
from instances.preflight.files import check_files, shown
from instances.preflight.findings import (
    PreflightFinding,
    Severity,
    error,
    warning,
)
from instances.preflight.flags import check_flags
from instances.preflight.programs import HelpCache, NoHelp, program
from llamactl.config import AppConfig

__all__ = ["PreflightFinding", "Severity", "check", "is_local"]

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 3.0
"""How long whoever saves an instance waits at most."""

_shelf = HelpCache()


def check(
    options: InstanceOptions,
    config: AppConfig,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    shelf: HelpCache = _shelf,
) -> list[PreflightFinding]:
    """What does not fit, the worst first; empty where all is well or nothing can be known.

    Files and program are looked at side by side, and neither is waited for longer than
    ``patience_seconds``.
    """
    backend = backend_for(options.backend_type)
    settings = backend.config_section(config)
    if not is_local(options, config):
        return []
    if runs_in_docker(options, settings):
        return _check_docker(backend)
    deadline = time.monotonic() + patience_seconds
    # Also the program is looked for on another thread: PATH may lead to a disk that is away.
    jobs: list[tuple[str, Callable[[], list[PreflightFinding]]]] = [
        (
            "backend_options",
            lambda: check_files(
                backend, options.backend_options, working_directory(options, config)
            ),
        ),
        (
            "command_override" if options.command_override else "backend_type",
            lambda: _check_program(options, config, shelf, patience_seconds * 0.9),
        ),
    ]
    findings = []
    for field, future in [(field, _begin(work)) for field, work in jobs]:
        findings += _result(field, future, deadline)
    return sorted(findings, key=lambda finding: not finding.is_error)


def is_local(options: InstanceOptions, config: AppConfig) -> bool:
    """Whether the instance is one of this node's."""
    return config.local_node in options.nodes


def _check_docker(backend: Backend) -> list[PreflightFinding]:
    try:
        find_docker(backend)
    except ExecutableNotFound as missing:
        return [warning("docker_enabled", missing.details)]
    return []


def _begin(work: Callable[[], list[PreflightFinding]]) -> Future[list[PreflightFinding]] | None:
    try:
        return begin(work)
    except TooBusy:
        return None


def _result(
    field: str, future: Future[list[PreflightFinding]] | None, deadline: float
) -> list[PreflightFinding]:
    problem = "too many checks are waiting for a disk or a program"
    if future is not None:
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            problem = "a disk or a program does not answer"
    return [warning(field, f"not checked: {problem}")]


def _check_program(
    options: InstanceOptions, config: AppConfig, shelf: HelpCache, patience_seconds: float
) -> list[PreflightFinding]:
    backend = backend_for(options.backend_type)
    settings = backend.config_section(config)
    field = "command_override" if options.command_override else "backend_type"
    try:
        command = find_program(options, settings)
        asked = program(
            command,
            settings.args,
            help_flags=backend.help_flags,
            configured=settings.environment,
            own=options.environment,
        )
    except ExecutableNotFound as missing:
        # The configured program may be installed later; a path that was typed is a typing error.
        return [(error if options.command_override else warning)(field, missing.details)]
    except OSError as missing:
        return [warning(field, f"the program can't be looked at: {missing.strerror}")]
    name = (
        f"the bundled {backend.title} server"
        if tuple(command) == backend.bundled_command
        else shown(command[0])
    )
    try:
        listed = shelf.help_of(asked, _help_directory(config), patience_seconds)
    except NoHelp as none:
        return [warning(field, f"the flags were not checked against {name}: {none}")]
    return check_flags(backend, options.backend_options, listed, name)


def _help_directory(config: AppConfig) -> Path:
    return config.data_dir / "help"
