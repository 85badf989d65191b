"""Dry run: the command that an options document would start. Nothing is saved.

The command comes from the function that the supervisor starts processes with.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from instances import lifecycle
from instances.errors import PreflightFailed
from instances.models import Instance
from instances.names import validate_name
from instances.node_checks import check_on_node, node_of, require_node
from instances.options import InstanceOptions, parse_new
from instances.ports import choose_port
from instances.preflight.findings import PreflightFinding, Severity, warning
from instances.unknown_options import unknown_options
from llamactl.config import AppConfig, current
from llamactl.masking import MASK, is_secret_name, mask_arguments, mask_command, mask_url
from nodes.agent import FindingDocument, StartCommand, agent_for, has_own_agent


@dataclass(frozen=True)
class DryRun:
    """Outcome of a dry run. Only ``options``, which the client itself sent, may hold secrets."""

    command: list[str]
    command_line: str
    """The command as text for a shell, with the instance's own variables but for secret ones."""
    environment: dict[str, str]
    """Variables added to the worker's own; values of the config and secret values are masked."""
    inherited_environment: list[str]
    """Names of the worker's own variables that the process sees; values may be secrets."""
    working_directory: str
    options: dict[str, object]
    findings: tuple[PreflightFinding, ...]

    def to_document(self) -> dict[str, object]:
        errors, warnings = split_by_severity(self.findings)
        return {
            "command": self.command,
            "command_line": self.command_line,
            "environment": self.environment,
            "inherited_environment": self.inherited_environment,
            "working_directory": self.working_directory,
            "options": self.options,
            "errors": errors,
            "warnings": warnings,
        }


def split_by_severity(
    findings: Sequence[PreflightFinding],
) -> tuple[list[FindingDocument], list[FindingDocument]]:
    """Return errors and warnings in the form of the API."""
    errors = [finding.to_document() for finding in findings if finding.is_error]
    warnings = [finding.to_document() for finding in findings if not finding.is_error]
    return errors, warnings


def dry_run_create(name: str, document: Mapping[str, object]) -> DryRun:
    """Dry run of ``lifecycle.create``. An existing instance of that name keeps its port.

    Raises InvalidInstanceName, InvalidRequest, InvalidInstance, PortOutOfRange or PortUnavailable.
    """
    validate_name(name)
    config = current()
    options = parse_new(document, config)
    require_node(options, config)
    existing = Instance.objects.filter(name=name).first()
    return _dry_run(name, options, existing, document, config)


def dry_run_update(name: str, document: Mapping[str, object]) -> DryRun:
    """Dry run of ``lifecycle.update``. Raises as ``dry_run_create``, and InstanceNotFound."""
    instance = lifecycle.get(name)
    config = current()
    options = lifecycle.replaced_options(instance, document, config)
    return _dry_run(name, options, instance, document, config)


def refuse_create_with_errors(name: str, document: Mapping[str, object]) -> None:
    """Raise PreflightFailed if the check finds errors; otherwise raises as ``dry_run_create``."""
    validate_name(name)
    _refuse_errors(parse_new(document, current()), None, document)


def refuse_update_with_errors(name: str, document: Mapping[str, object]) -> None:
    """Raise PreflightFailed if the check finds errors; otherwise raises as ``dry_run_update``."""
    instance = lifecycle.get(name)
    options = lifecycle.replaced_options(instance, document, current())
    _refuse_errors(options, instance, document)


def findings_of(instance: Instance, document: Mapping[str, object]) -> list[PreflightFinding]:
    """Return the findings of a saved instance, and the parts of ``document`` without effect."""
    options = InstanceOptions.from_document(instance.options)
    return [
        *check_on_node(options, current(), saved=instance),
        *unknown_options(document, options.nodes),
    ]


def _refuse_errors(
    options: InstanceOptions, saved: Instance | None, document: Mapping[str, object]
) -> None:
    """Raise PreflightFailed for an error, and for a name that no option has."""
    unknown = [
        replace(each, severity=Severity.ERROR) for each in unknown_options(document, options.nodes)
    ]
    findings = [*unknown, *check_on_node(options, current(), saved=saved)]
    errors, warnings = split_by_severity(findings)
    if errors:
        details = ". ".join(finding.text for finding in findings if finding.is_error)
        raise PreflightFailed(details[:2000], errors=errors, warnings=warnings)


def command_line_of(instance: Instance) -> str:
    """Return a saved instance's command for display, or "" if its options cannot be loaded."""
    config = current()
    try:
        options = InstanceOptions.from_document(instance.options)
    except (KeyError, TypeError, ValueError):
        return ""
    agent = agent_for(node_of(options, config))
    command = agent.start_command(instance.name, options.to_document(), instance.port)
    return _command_line(command, options)


def _port(options: InstanceOptions, existing: Instance | None, config: AppConfig) -> int:
    requested = options.backend_options.get("port")
    if existing is not None and requested in (None, existing.port):
        return existing.port
    others = Instance.objects.filter(node__name=node_of(options, config))
    if existing is not None:
        others = others.exclude(pk=existing.pk)
    taken = set(others.values_list("port", flat=True))
    return choose_port(requested if isinstance(requested, int) else None, taken, config)


def _dry_run(
    name: str,
    options: InstanceOptions,
    saved: Instance | None,
    document: Mapping[str, object],
    config: AppConfig,
) -> DryRun:
    port = _port(options, saved, config)
    node = node_of(options, config)
    command = agent_for(node).start_command(name, options.to_document(), port)
    findings = [
        *check_on_node(options, config, saved=saved),
        *unknown_options(document, options.nodes),
    ]
    if node != config.local_node and not has_own_agent(node):
        text = (
            f"it would be started on node {node}, whose programs and files can't be seen from here"
        )
        findings.append(warning("nodes", text))
    shown = options.model_copy(
        update={"backend_options": {**options.backend_options, "port": port}}
    )
    return DryRun(
        command=mask_arguments(command.argv),
        command_line=_command_line(command, options),
        environment=_masked(command.environment, options.environment),
        inherited_environment=list(command.inherited),
        working_directory=command.working_directory,
        options=shown.to_document(),
        findings=tuple(findings),
    )


def _command_line(command: StartCommand, options: InstanceOptions) -> str:
    """Return the command as text for a shell, without secrets."""
    assignments = [
        f"{variable}={shlex.quote(value)}"
        for variable, value in _masked(command.environment, options.environment).items()
        if value != MASK
    ]
    return " ".join([*assignments, mask_command(command.argv)])


def _masked(environment: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Mask the config's values, as GET /api/v1/config does, and secret values of the instance."""
    return {
        name: mask_url(value) if own.get(name) == value and not is_secret_name(name) else MASK
        for name, value in sorted(environment.items())
    }
