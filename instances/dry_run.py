"""What would be started for an options document, were it saved now? Nothing is saved.

The command is made by the function that the supervisor starts processes with.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from instances import lifecycle
from instances.errors import PreflightFailed
from instances.models import Instance
from instances.names import validate_name
from instances.node_checks import check_on_node, node_of
from instances.options import InstanceOptions
from instances.ports import choose_port
from instances.preflight.findings import PreflightFinding, warning
from llamactl.config import AppConfig, current
from llamactl.masking import MASK, is_secret_name, mask_arguments, mask_command, mask_url
from nodes.agent import FindingDocument, StartCommand, agent_for, has_own_agent


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
) -> tuple[list[FindingDocument], list[FindingDocument]]:
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
    options = InstanceOptions.parse(document, config)
    existing = Instance.objects.filter(name=name).first()
    return _dry_run(name, options, _port(options, existing, config), config)


def dry_run_update(name: str, document: Mapping[str, object]) -> DryRun:
    """Of ``lifecycle.update``. Raises as ``dry_run_create``, and InstanceNotFound."""
    instance = lifecycle.get(name)
    config = current()
    options = lifecycle.replaced_options(instance, document, config)
    return _dry_run(name, options, _port(options, instance, config), config)


def refuse_faulty_create(name: str, document: Mapping[str, object]) -> None:
    """Raises PreflightFailed where options have errors, and otherwise as ``dry_run_create``."""
    validate_name(name)
    _refuse_faults(InstanceOptions.parse(document, current()))


def refuse_faulty_update(name: str, document: Mapping[str, object]) -> None:
    """Raises PreflightFailed where options have errors, and otherwise as ``dry_run_update``."""
    _refuse_faults(lifecycle.replaced_options(lifecycle.get(name), document, current()))


def findings_of(instance: Instance) -> list[PreflightFinding]:
    """What a check finds about a saved instance."""
    return check_on_node(InstanceOptions.from_document(instance.options), current())


def _refuse_faults(options: InstanceOptions) -> None:
    findings = check_on_node(options, current())
    errors, warnings = split(findings)
    if errors:
        details = ". ".join(finding.text for finding in findings if finding.is_error)
        raise PreflightFailed(details[:2000], errors=errors, warnings=warnings)


def command_line_of(instance: Instance) -> str:
    """The command of a saved instance, to be shown; "" where its options can't be started."""
    config = current()
    try:
        options = InstanceOptions.from_document(instance.options)
    except (KeyError, TypeError, ValueError):
        return ""
    agent = agent_for(node_of(options, config))
    command = agent.start_command(instance.name, options.to_document(), instance.port)
    return _command_line(command, options)


def _port(options: InstanceOptions, existing: Instance | None, config: AppConfig) -> int:
    wanted = options.backend_options.get("port")
    if existing is not None and wanted in (None, existing.port):
        return existing.port
    others = Instance.objects.filter(node__name=node_of(options, config))
    if existing is not None:
        others = others.exclude(pk=existing.pk)
    taken = set(others.values_list("port", flat=True))
    return choose_port(wanted if isinstance(wanted, int) else None, taken, config)


def _dry_run(name: str, options: InstanceOptions, port: int, config: AppConfig) -> DryRun:
    node = node_of(options, config)
    command = agent_for(node).start_command(name, options.to_document(), port)
    findings = check_on_node(options, config)
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
    """Values of the configuration are nobody's business here, as in GET /api/v1/config."""
    return {
        name: mask_url(value) if own.get(name) == value and not is_secret_name(name) else MASK
        for name, value in sorted(environment.items())
    }
