"""What does the supervision of an instance use of the world around it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from instances.scheduling.traffic_report import Traffic
from instances.supervisor.process.pidfd import Process
from instances.supervisor.state.store import StateStore
from llamactl.config import AppConfig

NEVER = float("inf")

T = TypeVar("T")


class OffThread(Protocol):
    """Runs ``work`` on another thread, and ``then`` with its result on the supervisor's.

    ``on_error`` is the result of work that raises.
    """

    def __call__(
        self, work: Callable[[], T], then: Callable[[T], None], *, on_error: T
    ) -> None: ...


@dataclass(frozen=True)
class SupervisorContext:
    """Handed to each supervised instance by the loop."""

    config: AppConfig
    node_marker: str
    ledger: StateStore
    off_thread: OffThread
    watch: Callable[[Process, Callable[[], None]], None]
    """Calls back, once, when the process has exited."""
    key_for: Callable[[int], str]
    """Instance id → the key that llamactl shares with its backend."""
    clock: Callable[[], float]
    """Seconds that only grow."""
    is_ready: Callable[[str, tuple[str, ...], str], bool]
    """``health.is_ready``."""
    traffic: Callable[[], Traffic | None]
    """What the web processes carry; ``None``: nobody can say."""
