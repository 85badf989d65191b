"""The loads for each system: the essentials, the whole matrix, or the command line's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from bench.scenarios import Scenario
from tests.support.fake_backend.connection import DEFAULT_RESPONSE_BYTES, DEFAULT_TPS

REQUEST_BYTES = 300
STREAM_SECONDS = 2.0
"""Of a stream that ends: long beside its start, short enough for many starts."""

HELD_FROM = 500
"""As many streams are held open, unless told otherwise: restarted every two seconds they would
measure starts, not streams."""

DISCONNECT_CLIENTS = 1000
DISCONNECT_TPS = 10.0
PROBES_PER_SECOND = 50.0
OPEN_LOOP_SHARE = 0.5
MANY_KEYS = 10_000
MANY_INSTANCES = 1_000
TWO_PROCESSES = {"LLAMACTL_WEB_PROCESSES": "2"}
LITELLM = "LiteLLM"

Kind = Literal["llamactl", "nginx", "litellm"]


@dataclass(frozen=True)
class SystemSpec:
    """A system to bring up beside the direct one; the fields after `name` are llamactl's."""

    kind: Kind
    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    keys: int = 1
    instances: int = 1


@dataclass(frozen=True)
class Stage:
    """Systems that run at the same time, and their loads."""

    systems: tuple[SystemSpec, ...]
    scenarios: tuple[Scenario, ...]


def requests_of(
    clients: int,
    *,
    body_bytes: int = REQUEST_BYTES,
    response_bytes: int = DEFAULT_RESPONSE_BYTES,
    subject: str = "requests",
    rounds: int = 0,
) -> Scenario:
    """Clients that ask again when answered."""
    return Scenario(
        mode="requests",
        clients=clients,
        body_bytes=body_bytes,
        response_bytes=response_bytes,
        subject=subject,
        rounds=rounds,
    )


def streams_of(
    clients: int,
    *,
    tps: float = DEFAULT_TPS,
    stream_seconds: float | None = None,
    body_bytes: int = REQUEST_BYTES,
    rounds: int = 0,
) -> Scenario:
    """Streams one after another, or (`stream_seconds` 0, the default of many) held open."""
    if stream_seconds is None:
        stream_seconds = 0.0 if clients >= HELD_FROM else STREAM_SECONDS
    if stream_seconds:
        return Scenario(
            mode="streams",
            clients=clients,
            body_bytes=body_bytes,
            tps=tps,
            stream_seconds=stream_seconds,
            subject="streams",
            rounds=rounds,
        )
    return Scenario(
        mode="held",
        clients=clients,
        body_bytes=body_bytes,
        tps=tps,
        subject="held",
        probes=PROBES_PER_SECOND,
        rounds=rounds,
        # It can't open them in the time there is: some hundred requests a second is its limit.
        left_out=(LITELLM,),
    )


def disconnects_of(
    clients: int, *, tps: float = DISCONNECT_TPS, body_bytes: int = REQUEST_BYTES
) -> Scenario:
    """Held streams, as of `streams_of`, whose clients then all disconnect at once."""
    held = streams_of(clients, tps=tps, stream_seconds=0, body_bytes=body_bytes)
    return replace(held, subject="disconnects", probes=0.0, is_disconnecting=True)


def open_loop_of(clients: int, *, share: float = OPEN_LOOP_SHARE) -> Scenario:
    """A fixed rate; `clients` closed-loop requests must be among the scenarios before it."""
    return Scenario(
        mode="requests",
        clients=clients,
        body_bytes=REQUEST_BYTES,
        subject="open loop",
        share=share,
    )


ESSENTIALS: tuple[Scenario, ...] = (
    streams_of(5000, tps=2, rounds=1),
    *map(requests_of, (1, 16, 64)),
    open_loop_of(64),
    streams_of(200),
)
"""A few minutes. The held streams first: the memory of other loads would count as theirs."""

WHOLE: tuple[Scenario, ...] = (
    streams_of(1000, tps=10, rounds=1),
    streams_of(5000, tps=2, rounds=1),
    disconnects_of(DISCONNECT_CLIENTS),
    *map(requests_of, (1, 16, 64, 256)),
    open_loop_of(64),
    *(streams_of(streams, rounds=2) for streams in (1, 50)),
    streams_of(200),
    *(requests_of(16, body_bytes=size, subject="bodies", rounds=2) for size in (1_000, 100_000)),
    requests_of(4, body_bytes=10_000_000, subject="bodies", rounds=2),
)
OF_DATABASE: tuple[Scenario, ...] = (
    requests_of(1, subject="database"),
    requests_of(64, subject="database"),
)


def whole_matrix(peers: Sequence[SystemSpec], settings: Mapping[str, str]) -> tuple[Stage, ...]:
    """Everything: the peers and llamactl with one and two web processes; then full databases."""
    one = SystemSpec("llamactl", "llamactl", settings)
    two = SystemSpec("llamactl", "llamactl, 2 processes", {**settings, **TWO_PROCESSES})
    keys = SystemSpec("llamactl", f"{MANY_KEYS:,} keys", settings, keys=MANY_KEYS)
    instances = SystemSpec(
        "llamactl", f"{MANY_INSTANCES:,} instances", settings, instances=MANY_INSTANCES
    )
    return (
        Stage((*peers, one, two), WHOLE),
        Stage((one, keys, instances), OF_DATABASE),
    )
