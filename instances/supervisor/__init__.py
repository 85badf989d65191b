"""The supervisor of a node's backends: one thread that starts, probes, stops and adopts them."""

from __future__ import annotations

from instances.supervisor.supervisor import Supervisor, running_supervisor

__all__ = ["Supervisor", "running_supervisor"]
