"""What would be started for an options document, were it saved now? Nothing is saved.

The command is made by the function that the supervisor starts processes with.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from instances import lifecycle, preflight
from instances.errors import PreflightFailed
from instances.launch import ExecutableNotFound, executed, launch_for, working_directory
from instances.models import Instance
from instances.options import InstanceOptions, parse_options, stored_options, validate_name
from instances.ports import choose_port
from instances.preflight import PreflightFinding, PreflightFindingDocument
from llamactl.config import AppConfig, current
from llamactl.masking import MASK, is_secret_name, mask_arguments, mask_command, mask_url


@dataclass(frozen=True)
class DryRun:
    """A start that did not happen. Only ``options``, which the asker sent, may hold secrets."""

    command: list[str]
    command_line: str
    """The same to paste into a shell, with the instance's own variables but for secret ones."""
    environment: dict[str, str]
    """What is added to the worker's own; all but the instance's harmless variables are masked."""
    working_directory: str
    options: dict[str, object]
    findings: tuple[PreflightFinding, ...]

    def to_document(self) -> dict[str, object]:
        errors, warnings = split(self.findings)
        return {
            "command": self.command,
            "command_line": self.command_line,
            "environment": self.environment,
            "working_directory": self.working_directory,
            "options": self.options,
            "errors": errors,
            "warnings": warnings,
        }


def split(
    findings: Sequence[PreflightFinding],
) -> tuple[list[PreflightFindingDocument], list[PreflightFindingDocument]]:
    """Errors and warnings, as the API shows them."""
    errors = [finding.to_document() for finding in findings if finding.is_error]
    warnings = [finding.to_document() for finding in findings if not finding.is_error]
    return errors, warnings


def dry_run_create(name: str, document: Mapping[str, object]) -> DryRun:
    """Of ``lifecycle.create``; the name may be taken, whose port is then kept.

    Raises InvalidInstanceName, InvalidRequest, InvalidInstance, PortOutOfRange or PortUnavailable.
    """
    validate_name(name)
    config = current()
    options = parse_options(document, config)
    existing = Instance.objects.filter(name=name).first()
    return _rehearse(name, options, _port(options, existing, config), config)


def dry_run_update(name: str, document: Mapping[str, object]) -> DryRun:
    """Of ``lifecycle.update``. Raises as ``dry_run_create``, and InstanceNotFound."""
    instance = lifecycle.get(name)
    config = current()
    options = lifecycle.replaced_options(instance, document, config)
    return _rehearse(name, options, _port(options, instance, config), config)


def refuse_faulty_create(name: str, document: Mapping[str, object]) -> None:
    """Raises PreflightFailed where options have errors, and otherwise as ``dry_run_create``."""
    validate_name(name)
    _refuse_faults(parse_options(document, current()))


def refuse_faulty_update(name: str, document: Mapping[str, object]) -> None:
    """Raises PreflightFailed where options have errors, and otherwise as ``dry_run_update``."""
    _refuse_faults(lifecycle.replaced_options(lifecycle.get(name), document, current()))


def findings_of(instance: Instance) -> list[PreflightFinding]:
    """What a check finds about a saved instance."""
    return preflight.check(stored_options(instance.options), current())


def _refuse_faults(options: InstanceOptions) -> None:
    findings = preflight.check(options, current())
    errors, warnings = split(findings)
    if errors:
        details = ". ".join(finding.text for finding in findings if finding.is_error)
        raise PreflightFailed(details[:2000], errors=errors, warnings=warnings)


def command_line_of(instance: Instance) -> str:
    """The command of a saved instance, to be shown; "" where its options can't be started."""
    config = current()
    try:
        options = stored_options(instance.options)
    except (KeyError, TypeError, ValueError):
        return ""
    return _command(instance.name, options, instance.port, config)[1]


def _port(options: InstanceOptions, existing: Instance | None, config: AppConfig) -> int:
    wanted = options.backend_options.get("port")
    if existing is not None and wanted in (None, existing.port):
        return existing.port
    others = Instance.objects.filter(node__name=_node(options, config))
    if existing is not None:
        others = others.exclude(pk=existing.pk)
    taken = set(others.values_list("port", flat=True))
    return choose_port(wanted if isinstance(wanted, int) else None, taken, config)


def _node(options: InstanceOptions, config: AppConfig) -> str:
    return config.local_node if preflight.is_local(options, config) else options.nodes[0]


def _rehearse(name: str, options: InstanceOptions, port: int, config: AppConfig) -> DryRun:
    argv, line, environment = _command(name, options, port, config)
    findings = preflight.check(options, config)
    if not preflight.is_local(options, config):
        node = _node(options, config)
        findings.append(
            PreflightFinding(
                "nodes",
                preflight.Severity.WARNING,
                f"it would be started on node {node}, whose programs and files can't be seen from"
                " here",
            )
        )
    shown = replace(options, backend_options={**options.backend_options, "port": port})
    return DryRun(
        command=argv,
        command_line=line,
        environment=environment,
        working_directory=str(working_directory(options, config)),
        options=shown.to_document(),
        findings=tuple(findings),
    )


def _command(
    name: str, options: InstanceOptions, port: int, config: AppConfig
) -> tuple[list[str], str, dict[str, str]]:
    """Arguments, command line and environment, without secrets."""
    which = shutil.which if preflight.is_local(options, config) else _as_it_is
    try:
        launch = launch_for(name, options, port, config, MASK, which=which)
        argv = executed(launch) if which is shutil.which else launch.argv
    except ExecutableNotFound:
        # It would not start, as the findings say; what was meant can be shown all the same.
        launch = launch_for(name, options, port, config, MASK, which=_as_it_is)
        argv = launch.argv
    environment = _masked(launch.environment, options.environment)
    assignments = [
        f"{variable}={shlex.quote(value)}"
        for variable, value in environment.items()
        if value != MASK
    ]
    return mask_arguments(argv), " ".join([*assignments, mask_command(argv)]), environment


def _as_it_is(command: str, *_: object, **__: object) -> str:
    return command


def _masked(environment: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Values of the configuration are nobody's business here, as in GET /api/v1/config."""
    return {
        name: mask_url(value) if own.get(name) == value and not is_secret_name(name) else MASK
        for name, value in sorted(environment.items())
    }
