"""The routing table: an immutable snapshot of instances and keys, replaced whole."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from instances.model_info import UNKNOWN_MODEL, ModelInfo
from instances.states import DesiredState, Status
from proxy.body.request_defaults import RequestDefaults


@dataclass(frozen=True, slots=True)
class Target:
    """One instance, as requests need to know it."""

    id: int
    name: str
    created: int
    """Unix seconds."""
    origin: str
    """``http://host:port``, without a slash."""
    authorization: str | None
    """The Authorization header for the backend; ``None`` for a backend without a key."""
    served_model: str | None
    """The backend's own name of its model; ``None`` in router mode, with several models."""
    on_demand_start: bool
    desired_state: DesiredState
    status: Status
    generation: int
    observed_generation: int
    failure: Mapping[str, Any] | None
    response_headers: tuple[tuple[bytes, bytes], ...] = ()
    load_seconds: float | None = None
    """The duration of its last start, if known."""
    started_at: float | None = None
    """The beginning of its last start, in unix seconds."""
    keepalive_blanks: bool = False
    """Whether a waiting request without a stream is kept alive by blanks before its JSON."""
    is_llama_server: bool = False
    """Whether the backend has llama-server's endpoints and web UI (``/llama-cpp/…``)."""
    paths: frozenset[str] | None = None
    """Paths below ``/v1`` that start the instance; ``None``: all."""
    asks_for_usage: bool = False
    """Whether the backend tells the tokens of a stream only if it is asked."""
    requested_by: str = ""
    queue: Mapping[str, Any] | None = None
    """``place``, ``length`` and ``reason``, while the scheduler has the instance queued."""
    stop_hold_until: datetime | None = None
    failure_hold_until: datetime | None = None
    edited_generation: int = 0
    """See ``instances.activation_hold``."""
    aliases: tuple[str, ...] = ()
    """Further names of requests."""
    lists_aliases: bool = True
    """Whether the list of models has them."""
    request_defaults: RequestDefaults | None = None
    info: ModelInfo = UNKNOWN_MODEL
    model_file: str = ""
    """The GGUF file of its model on this host, if it has one."""

    @property
    def is_ready(self) -> bool:
        """Whether the instance takes requests; after the request to stop it takes no more."""
        return self.status is Status.RUNNING and self.desired_state is DesiredState.RUNNING

    def has_path(self, path: str) -> bool:
        """Whether the backend is known to have the path.

        Of llama-server's paths only those below ``/v1`` are looked up: routing knows the others.
        """
        if self.paths is None or path in self.paths:
            return True
        return self.is_llama_server and not path.startswith("/v1/")


@dataclass(frozen=True, slots=True)
class KeyRule:
    """The permissions of a key."""

    id: int | None
    """The database id, for ``last_used_at``; ``None`` for a management key."""
    digest: bytes
    instance_ids: frozenset[int] | None
    """The ids of the instances that the key may use; ``None``: all."""
    expires_at: float | None = None
    """Unix seconds."""
    is_management: bool = False
    name: str = ""
    """For lists of what runs; empty for a management key."""
    startable_ids: frozenset[int] | None = None
    """The ids of the instances that its requests may start; ``None``: all that it may use."""
    evicting_ids: frozenset[int] | None = None
    """The ids of the instances whose start may evict another one; ``None``: all that it may use."""
    stoppable_ids: frozenset[int] = frozenset()

    def allows(self, target: Target) -> bool:
        return self.instance_ids is None or target.id in self.instance_ids

    def may_start(self, target: Target) -> bool:
        """Whether its request may start the instance, which it may use."""
        return self.startable_ids is None or target.id in self.startable_ids

    def may_evict_for(self, target: Target) -> bool:
        """Whether a start of the instance by its request may stop another one."""
        return self.evicting_ids is None or target.id in self.evicting_ids

    def may_stop(self, target: Target) -> bool:
        return self.is_management or target.id in self.stoppable_ids


UNRESTRICTED = KeyRule(id=None, digest=b"", instance_ids=None)
"""The rule of requests that need no key."""


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """A snapshot of the database; ``revision`` is that of the instances."""

    targets: Mapping[str, Target] = field(default_factory=lambda: MappingProxyType({}))
    keys: Mapping[bytes, KeyRule] = field(default_factory=lambda: MappingProxyType({}))
    revision: int = -1
    imported_hashes: tuple[str, ...] = ()
    """Argon2id hashes of imported keys that were not used yet; see ``proxy.imported_keys``."""
    aliased: Mapping[str, Target] = field(init=False)
    """The instance of each alias."""

    def __post_init__(self) -> None:
        found = {alias: each for each in self.targets.values() for alias in each.aliases}
        object.__setattr__(self, "aliased", MappingProxyType(found))

    def rule(self, digest: bytes, now: float) -> KeyRule | None:
        """The rule of the key with this SHA-256, unless it has expired at ``now``."""
        rule = self.keys.get(digest)
        if rule is None or not hmac.compare_digest(rule.digest, digest):
            return None
        if rule.expires_at is not None and rule.expires_at <= now:
            return None
        return rule

    def route(self, model: str) -> tuple[Target, str | None] | None:
        """The target of a request's ``model``, and the model name for its backend.

        ``name``, or an alias, is the instance, and its backend's own model; ``name/model`` is a
        model of that instance (router mode). The model name is ``None`` if the body need not
        change.
        """
        target = self.targets.get(model) or self.aliased.get(model)
        if target is not None:
            served = target.served_model
            return target, None if served == model else served
        name, slash, rest = model.partition("/")
        target = self.targets.get(name) if slash and rest else None
        return (target, rest) if target is not None else None
