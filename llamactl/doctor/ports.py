"""Check of the port range, and of foreign programs on the ports of instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from instances.ports import is_bindable
from llamactl.config import AppConfig
from llamactl.doctor.diagnosis import Diagnosis, note, ok, problem, warning

SUBJECT = "ports"
FEW_PORTS = 10


@dataclass(frozen=True)
class PortFacts:
    first: int
    last: int
    own_port: int
    free: int
    """Number of free ports in the range."""
    ephemeral: tuple[int, int] | None = None
    """The range from which the kernel takes ports of outgoing connections."""
    reserved: frozenset[int] = frozenset()
    """Ports of the ephemeral range that the kernel does not use."""


@dataclass(frozen=True)
class Listener:
    """A process that listens on a port; ``pid`` is None for another user's process."""

    pid: int | None
    name: str
    is_backend: bool
    """Whether the process is a backend of this node."""


@dataclass(frozen=True)
class InstancePorts:
    """Names of instances and their listeners, by port."""

    instances: Mapping[int, str]
    listeners: Mapping[int, Listener] = field(default_factory=dict)


def collect(config: AppConfig) -> PortFacts:
    first, last = config.instances.port_range
    return PortFacts(
        first,
        last,
        config.server.port,
        free=sum(is_bindable(port) for port in range(first, last + 1)),
        ephemeral=_ephemeral(),
        reserved=_reserved(),
    )


def diagnose(facts: PortFacts) -> Iterator[Diagnosis]:
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
            SUBJECT, f"llamactl's own port {facts.own_port} is in this range; no instance gets it"
        )
    if facts.ephemeral is not None:
        low, high = max(facts.first, facts.ephemeral[0]), min(facts.last, facts.ephemeral[1])
        shared = [port for port in range(low, high + 1) if port not in facts.reserved]
        if shared:
            yield warning(
                SUBJECT,
                f"{len(shared)} of them ({shared[0]}-{shared[-1]}) are in the kernel's range for"
                " outgoing connections, which may take an instance's port",
                f"choose a range below {facts.ephemeral[0]}, or: sysctl"
                f" net.ipv4.ip_local_reserved_ports={facts.first}-{facts.last}",
            )


def collect_instances(
    instances: Mapping[int, str], backends: set[int], sessions: set[int]
) -> InstancePorts:
    """Collect the listeners on the instances' ports.

    ``backends`` are the pids with this node's marker, ``sessions`` the session leaders among them.
    """
    listeners = {}
    with suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            port = connection.laddr.port
            if port in instances:
                listeners[port] = _listener(connection.pid, backends, sessions)
    return InstancePorts(instances, listeners)


def diagnose_instances(facts: InstancePorts) -> Iterator[Diagnosis]:
    for port, listener in sorted(facts.listeners.items()):
        if not listener.is_backend:
            program = listener.name + (f" (process {listener.pid})" if listener.pid else "")
            yield problem(
                SUBJECT,
                f"{program} listens on port {port} of instance {facts.instances[port]}",
                "end that program, or start the instance: without a fixed port it takes another",
            )


def _listener(pid: int | None, backends: set[int], sessions: set[int]) -> Listener:
    if pid is None:
        return Listener(None, "another user's program", is_backend=False)
    name, is_backend = "a program", pid in backends
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        name = process.name()
        # Docker's own proxy, or a child of a backend without the marker in its environment.
        is_backend = is_backend or any(each.pid in sessions for each in process.parents())
        is_backend = is_backend or name.startswith("docker")
    return Listener(pid, name, is_backend)


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
