"""What a web process knows of instances and keys: immutable, looked up, replaced whole."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from instances.states import DesiredState, Status


@dataclass(frozen=True, slots=True)
class Target:
    """One instance, as a request needs to know it."""

    id: int
    name: str
    created: int
    """Unix seconds."""
    origin: str
    """``http://host:port``, without a slash."""
    authorization: str | None
    """The value of the Authorization header for the backend; ``None`` where it takes no key."""
    served_model: str | None
    """What the backend calls its model; ``None`` where it serves several (router mode)."""
    on_demand_start: bool
    desired_state: DesiredState
    status: Status
    generation: int
    observed_generation: int
    failure: Mapping[str, Any] | None
    response_headers: tuple[tuple[bytes, bytes], ...] = ()
    load_seconds: float | None = None
    """How long its last start took until it was ready, where that is known."""
    is_llama_server: bool = False
    """Whether it has llama-server's own endpoints and web UI (``/llama-cpp/…``)."""
    requested_by: str = ""
    queue: Mapping[str, Any] | None = None
    """``place``, ``length`` and ``reason``, while it waits for room."""

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests; one that is asked to stop takes no more."""
        return self.status is Status.RUNNING and self.desired_state is DesiredState.RUNNING


@dataclass(frozen=True, slots=True)
class KeyRule:
    """What the holder of a key may do."""

    id: int | None
    """The database id, for ``last_used_at``; ``None`` for a management key."""
    digest: bytes
    instance_ids: frozenset[int] | None
    """The instances it opens; ``None``: all."""
    expires_at: float | None = None
    """Unix seconds."""
    is_management: bool = False

    def allows(self, target: Target) -> bool:
        return self.instance_ids is None or target.id in self.instance_ids


ANYONE = KeyRule(id=None, digest=b"", instance_ids=None)
"""The rule that applies where a side asks for no key."""


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """A snapshot of the database; ``revision`` is the instances' number it was read at."""

    targets: Mapping[str, Target] = field(default_factory=lambda: MappingProxyType({}))
    keys: Mapping[bytes, KeyRule] = field(default_factory=lambda: MappingProxyType({}))
    revision: int = -1

    def rule(self, digest: bytes, now: float) -> KeyRule | None:
        """The rule of the key with this SHA-256, unless it has expired at ``now``."""
        rule = self.keys.get(digest)
        if rule is None or not hmac.compare_digest(rule.digest, digest):
            return None
        if rule.expires_at is not None and rule.expires_at <= now:
            return None
        return rule

    def route(self, model: str) -> tuple[Target, str | None] | None:
        """The target that a request's ``model`` names, and what the backend is to read there.

        ``name`` is the instance and becomes its own model's name; ``name/model`` is a model of
        that instance (router mode). ``None`` in the second place: leave the body as it is.
        """
        target = self.targets.get(model)
        if target is not None:
            served = target.served_model
            return target, None if served == model else served
        name, slash, rest = model.partition("/")
        target = self.targets.get(name) if slash and rest else None
        return (target, rest) if target is not None else None
