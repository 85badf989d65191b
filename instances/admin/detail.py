"""State of one instance for its page: facts, warning, failure, history, log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from instances.admin.badge import hold_text
from instances.models import Instance, StatusChange
from instances.states import DesiredState, Status
from llamactl.admin.base import elapsed_time, relative_time
from llamactl.config import current
from llamactl.core.sanitize import sanitize_text
from nodes.agent import agent_for
from nodes.errors import LogUnreadable

LOG_LINES = 100
LOG_BYTES = 32 * 1024
"""Of the log that is read at most, once a second while a page is open."""
HISTORY_LENGTH = 20


@dataclass(frozen=True)
class FailureText:
    """Failure of an instance, as printable text."""

    reason: str
    details: str
    exit_code: str
    log_tail: str


@dataclass(frozen=True)
class HistoryLine:
    """One transition of the history, as printable text."""

    at: datetime
    status: str
    label: str
    reason: str
    cause: str


@dataclass(frozen=True)
class Overview:
    """State of one instance at one moment."""

    instance: Instance
    now: datetime
    facts: tuple[tuple[str, str], ...]
    warning: str
    failure: FailureText | None
    history: tuple[HistoryLine, ...]
    log: str
    log_problem: str


def overview(instance: Instance, now: datetime | None = None) -> Overview:
    """Return the state of ``instance``, whose node must be loaded; reads history and log."""
    now = now or timezone.now()
    log, log_problem = last_lines(instance)
    return Overview(
        instance=instance,
        now=now,
        facts=tuple(_facts(instance, now)),
        warning=_warning(instance, now),
        failure=_failure(instance.failure),
        history=tuple(to_history_line(row) for row in instance.history.all()[:HISTORY_LENGTH]),
        log=log,
        log_problem=log_problem,
    )


def to_history_line(row: StatusChange) -> HistoryLine:
    """Return a row of the history as printable text."""
    return HistoryLine(
        at=row.at,
        status=row.new,
        label=str(Status(row.new).label),
        reason=sanitize_text(row.reason),
        cause=sanitize_text(row.cause),
    )


def curl_line(name: str, base_url: str, key: str = "$LLAMACTL_KEY") -> str:
    """Return a shell command that sends a chat request to the instance ``name``.

    ``base_url`` ends without a slash. The default ``key`` is a shell variable.
    """
    body = {"model": name, "messages": [{"role": "user", "content": "Hello!"}]}
    lines = [f"curl {base_url}/v1/chat/completions"]
    if current().auth.require_inference_auth:
        lines.append(f'-H "Authorization: Bearer {key}"')
    lines.append("-H 'Content-Type: application/json'")
    lines.append(f"-d '{json.dumps(body)}'")
    return " \\\n  ".join(lines)


def _facts(instance: Instance, now: datetime) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = [
        ("Model", sanitize_text(instance.summary) or "none"),
        ("Port", str(instance.port)),
        ("Node", instance.node.name),
    ]
    if instance.pid is not None:
        facts.append(("Process", str(instance.pid)))
    if instance.status == Status.RUNNING and instance.ready_at is not None:
        facts.append(("Ready for", elapsed_time(instance.ready_at, now)))
    elif instance.status == Status.STARTING and instance.started_at is not None:
        facts.append(("Starting for", elapsed_time(instance.started_at, now)))
    if instance.queue and instance.place_in_queue:
        reason = sanitize_text(str(instance.queue["reason"]))
        facts.append(("Waits for capacity", f"{instance.place_in_queue}: {reason}"))
    if hold := hold_text(instance, now):
        facts.append(("Hold", hold))
    if instance.requested_by:
        facts.append(("Requested by", sanitize_text(instance.requested_by)))
    facts.append(("Restarts", str(instance.restarts)))
    if instance.last_used_at is not None:
        facts.append(("Last used", relative_time(instance.last_used_at, now)))
    return facts


def _warning(instance: Instance, now: datetime) -> str:
    """Return a warning if the desired state is not reached and the worker is away, else ""."""
    should_run = instance.desired_state == DesiredState.RUNNING
    is_running = instance.status == Status.RUNNING
    is_reached = should_run == is_running and not instance.has_pending_generation
    if is_reached or instance.node.is_alive(now):
        return ""
    return (
        f"The worker of node {instance.node.name} has sent no heartbeat lately; requests take"
        " effect when the worker is back."
    )


def _failure(failure: Mapping[str, Any] | None) -> FailureText | None:
    if not failure:
        return None
    lines = failure.get("log_tail") or ""
    exit_code = failure.get("exit_code")
    return FailureText(
        reason=sanitize_text(str(failure.get("reason") or "failed")).replace("_", " "),
        details=sanitize_text(str(failure.get("details") or "")),
        exit_code="" if exit_code is None else sanitize_text(str(exit_code)),
        log_tail=sanitize_text(lines if isinstance(lines, str) else "\n".join(map(str, lines))),
    )


def last_lines(instance: Instance) -> tuple[str, str]:
    """Return the last lines of the log and, if the log cannot be read, the reason."""
    agent = agent_for(instance.node.name)
    try:
        lines = agent.last_lines(instance.name, LOG_LINES, max_bytes=LOG_BYTES)
    except LogUnreadable as error:
        return "", f"The log can't be read: {error.reason}"
    return sanitize_text("\n".join(lines)), ""
