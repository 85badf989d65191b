"""Are there ports for the instances, and does nobody else sit on them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from instances.ports import is_bindable
from llamactl.config import AppConfig
from llamactl.doctor.findings import Diagnosis, note, ok, problem, warning

SUBJECT = "ports"
FEW_PORTS = 10


@dataclass(frozen=True)
class PortFacts:
    first: int
    last: int
    own_port: int
    free: int
    """How many of the range nobody listens on."""
    ephemeral: tuple[int, int] | None = None
    """From where the kernel takes the ports of outgoing connections."""
    reserved: frozenset[int] = frozenset()
    """What it spares of those."""


@dataclass(frozen=True)
class Listener:
    """Who listens on a port; ``pid`` is None where we may not know."""

    pid: int | None
    name: str
    is_ours: bool
    """Whether it is a backend of this node."""


@dataclass(frozen=True)
class InstancePorts:
    """Port of an instance → its name, and who listens there."""

    instances: Mapping[int, str]
    listeners: Mapping[int, Listener] = field(default_factory=dict)


def look(config: AppConfig) -> PortFacts:
    first, last = config.instances.port_range
    return PortFacts(
        first,
        last,
        config.server.port,
        free=sum(is_bindable(port) for port in range(first, last + 1)),
        ephemeral=_ephemeral(),
        reserved=_reserved(),
    )


def judge(facts: PortFacts) -> Iterator[Diagnosis]:
    count = facts.last - facts.first + 1
    text = f"{facts.free} of {count} are free ({facts.first}-{facts.last})"
    if facts.free == 0:
        yield problem(SUBJECT, text, "widen instances.port_range")
    elif facts.free < FEW_PORTS:
        yield warning(SUBJECT, text, "widen instances.port_range")
    else:
        yield ok(SUBJECT, text)
    if facts.first <= facts.own_port <= facts.last:
        yield note(
            SUBJECT, f"llamactl's own port, {facts.own_port}, lies among them; no instance gets it"
        )
    if facts.ephemeral is not None:
        low, high = max(facts.first, facts.ephemeral[0]), min(facts.last, facts.ephemeral[1])
        shared = [port for port in range(low, high + 1) if port not in facts.reserved]
        if shared:
            yield warning(
                SUBJECT,
                f"{len(shared)} of them ({shared[0]}-{shared[-1]}) are also given to outgoing"
                " connections, which now and then will be on an instance's port",
                f"choose a range below {facts.ephemeral[0]}, or: sysctl"
                f" net.ipv4.ip_local_reserved_ports={facts.first}-{facts.last}",
            )


def look_at_instances(
    instances: Mapping[int, str], backends: set[int], sessions: set[int]
) -> InstancePorts:
    """``backends``: pids that carry the node's marker. ``sessions``: those that lead theirs."""
    listeners = {}
    with suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            port = connection.laddr.port
            if port in instances:
                listeners[port] = _listener(connection.pid, backends, sessions)
    return InstancePorts(instances, listeners)


def judge_instances(facts: InstancePorts) -> Iterator[Diagnosis]:
    for port, listener in sorted(facts.listeners.items()):
        if not listener.is_ours:
            who = listener.name + (f" (process {listener.pid})" if listener.pid else "")
            yield problem(
                SUBJECT,
                f"{who} listens on port {port}, which is {facts.instances[port]}'s",
                "end it, or start the instance: one whose port is not fixed moves to another",
            )


def _listener(pid: int | None, backends: set[int], sessions: set[int]) -> Listener:
    if pid is None:
        return Listener(None, "another user's program", is_ours=False)
    name, is_ours = "a program", pid in backends
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        name = process.name()
        # Docker's own proxy, or a child that has lost its environment.
        is_ours = is_ours or any(each.pid in sessions for each in process.parents())
        is_ours = is_ours or name.startswith("docker")
    return Listener(pid, name, is_ours)


def _ephemeral() -> tuple[int, int] | None:
    with suppress(OSError, ValueError):
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(low), int(high)
    return None


def _reserved() -> frozenset[int]:
    ports: set[int] = set()
    with suppress(OSError, ValueError):
        text = Path("/proc/sys/net/ipv4/ip_local_reserved_ports").read_text().strip()
        for part in filter(None, text.split(",")):
            first, _, last = part.partition("-")
            ports.update(range(int(first), int(last or first) + 1))
    return frozenset(ports)
