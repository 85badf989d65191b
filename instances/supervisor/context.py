"""Services of the supervisor for the controllers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from instances.scheduling.traffic_report import Traffic
from instances.supervisor.controller.health_check import ProbeAnswer
from instances.supervisor.process.listeners import PortOwner
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.store import StateStore
from llamactl.config import AppConfig

NO_DEADLINE = float("inf")
LONG_AGO = float("-inf")

T = TypeVar("T")
CheckHealth = Callable[[str, tuple[str, ...]], ProbeAnswer]
"""``health_check.check``."""
OwnerOf = Callable[[Process, str, int], PortOwner]
"""``listeners.owner_of``."""


class OffThread(Protocol):
    """Runs ``work`` on another thread, and ``then`` with its result on the supervisor's thread.

    ``on_error`` is the result of work that raises.
    """

    def __call__(
        self, work: Callable[[], T], then: Callable[[T], None], *, on_error: T
    ) -> None: ...


@dataclass(frozen=True)
class SupervisorContext:
    """The services that each controller gets from the supervisor."""

    config: AppConfig
    node_marker: str
    store: StateStore
    off_thread: OffThread
    watch: Callable[[Process, Callable[[], None]], None]
    """Calls back once, when the process has exited."""
    key_for: Callable[[int, str], str]
    """Instance id, launch id → API key that llamactl shares with the process."""
    clock: Callable[[], float]
    """Monotonic seconds."""
    check_health: CheckHealth
    owner_of: OwnerOf
    traffic: Callable[[], Traffic | None]
    """The traffic of all web processes; ``None`` without fresh reports."""
