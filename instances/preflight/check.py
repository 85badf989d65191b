"""Preflight check of an instance's options on the node that would run the instance.

The API and the admin ask for the check before they save options. A start makes no such check: the
launch finds the same problems. Instances of other nodes are not checked, and of an instance in a
container only docker itself, because their programs and files can't be seen from this host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from pathlib import Path

from instances.backends.base import Backend
from instances.backends.registry import backend_for
from instances.launch import (
    ExecutableNotFound,
    find_docker,
    find_program,
    runs_in_docker,
    working_directory,
)
from instances.options import InstanceOptions
from instances.preflight.daemon_threads import TooManyThreads, start
from instances.preflight.files import check_files, shown
from instances.preflight.findings import PreflightFinding, error, warning
from instances.preflight.flags import check_flags, check_json
from instances.preflight.help_cache import HelpCache, HelpUnavailable
from instances.preflight.programs import LOADER_VARIABLES, identify
from instances.preflight.secrets import check_docker_secrets, check_secrets
from llamactl.config import AppConfig

TIMEOUT_SECONDS = 3.0
"""The longest time that a check delays the saving of an instance."""

_help_cache = HelpCache()


def check_options(
    options: InstanceOptions,
    config: AppConfig,
    *,
    unsaved: Collection[str] = (),
    timeout_seconds: float = TIMEOUT_SECONDS,
    help_cache: HelpCache = _help_cache,
) -> list[PreflightFinding]:
    """Return the findings, errors first; an empty list if none is found or nothing can be known.

    Files and program are checked at the same time, each within ``timeout_seconds``. ``unsaved``
    names the variables of the environment that no saved instance has.
    """
    backend = backend_for(options.backend_type)
    if not is_local(options, config):
        return []
    if runs_in_docker(options, backend.config_section(config)):
        found = [*_check_docker(backend), *_check_options(backend, options)]
        return [*found, *check_docker_secrets(options.docker_args)]
    deadline = time.monotonic() + timeout_seconds
    directory = working_directory(options, config)
    # The search for the program has a thread too: PATH may lead to a network disk that is away.
    checks: dict[str, Callable[[], list[PreflightFinding]]] = {
        "backend_options": lambda: check_files(backend, options.backend_options, directory),
        _program_field(options): lambda: _check_program(
            backend, options, config, help_cache, timeout_seconds * 0.9
        ),
    }
    not_used = sorted(set(unsaved).intersection(options.environment, LOADER_VARIABLES))
    if not_used:
        checks[_program_field(options)] = lambda: [_unchecked(not_used)]
    started = [(field, _start(check)) for field, check in checks.items()]
    findings = [found for field, future in started for found in _result(field, future, deadline)]
    findings += _check_options(backend, options)
    return sorted(findings, key=lambda finding: not finding.is_error)


def is_local(options: InstanceOptions, config: AppConfig) -> bool:
    """Tell whether the instance belongs to this host's node."""
    return config.local_node in options.nodes


def _check_options(backend: Backend, options: InstanceOptions) -> list[PreflightFinding]:
    """Return the findings of the options alone, without program and files."""
    checks = (check_json, check_secrets)
    return [finding for check in checks for finding in check(backend, options.backend_options)]


def _check_docker(backend: Backend) -> list[PreflightFinding]:
    try:
        find_docker(backend)
    except ExecutableNotFound as missing:
        return [warning("docker_enabled", missing.details)]
    return []


def _start(check: Callable[[], list[PreflightFinding]]) -> Future[list[PreflightFinding]] | None:
    try:
        return start(check)
    except TooManyThreads:
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


def _unchecked(variables: Sequence[str]) -> PreflightFinding:
    return warning(
        "environment",
        f"the flags were not checked: {', '.join(variables)} may load another program's code, so"
        " no program is asked for its help before the instance is saved",
    )


def _program_field(options: InstanceOptions) -> str:
    """Return the field of the options that chooses the program."""
    return "command_override" if options.command_override else "backend_type"


def _check_program(
    backend: Backend,
    options: InstanceOptions,
    config: AppConfig,
    help_cache: HelpCache,
    timeout_seconds: float,
) -> list[PreflightFinding]:
    section = backend.config_section(config)
    field = _program_field(options)
    try:
        command = find_program(options, section)
        program = identify(
            command,
            section.args,
            help_flags=backend.help_flags,
            configured=section.environment,
            own=options.environment,
        )
    except ExecutableNotFound as missing:
        # The configured program may be installed later; a path in the options is a typing error.
        return [(error if options.command_override else warning)(field, missing.details)]
    except OSError as missing:
        return [warning(field, f"the program can't be read: {missing.strerror}")]
    name = (
        f"the bundled {backend.title} server"
        if tuple(command) == backend.bundled_command
        else shown(command[0])
    )
    try:
        listed = help_cache.help_of(program, _help_directory(config), timeout_seconds)
    except HelpUnavailable as problem:
        return [warning(field, f"the flags were not checked against {name}: {problem}")]
    return check_flags(backend, options.backend_options, listed, name)


def _help_directory(config: AppConfig) -> Path:
    return config.data_dir / "help"
