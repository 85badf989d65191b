"""The loads that every system gets, and the figures shown for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from bench.plan import LoadPlan, Mode
from bench.systems import System
from tests.support.fake_backend.connection import DEFAULT_RESPONSE_BYTES, DEFAULT_TPS

SYSTEM_PROMPT = "You are a helpful assistant."
OPENED_PER_SECOND = 500.0
"""How many of the streams that are held open begin in a second."""

MARGIN_SECONDS = 10.0
"""The margin of a held stream beyond the end of the window, for a late begin."""


@dataclass(frozen=True)
class Column:
    """One figure of the table: its key among the figures, its heading, and how it is written.

    `compared` is how it is set against the direct system: as a ratio ("x"), as the proxy's
    addition ("+"), or not at all ("").
    """

    key: str
    heading: str
    digits: int
    compared: str = ""


REQUEST_COLUMNS = (
    Column("requests_per_second", "requests/s", 0, "x"),
    Column("latency_p50_ms", "p50 ms", 2, "+"),
    Column("latency_p99_ms", "p99 ms", 2, "+"),
    Column("latency_max_ms", "max ms", 1),
)
OPEN_LOOP_COLUMNS = (
    Column("requests_per_second", "requests/s", 0),
    Column("asked_per_second", "asked/s", 0),
    Column("latency_p50_ms", "p50 ms", 2),
    Column("latency_p99_ms", "p99 ms", 2),
    Column("latency_max_ms", "max ms", 1),
    Column("lateness_p50_ms", "sent late p50 ms", 2),
)
STREAM_COLUMNS = (
    Column("events_per_second", "events/s", 0, "x"),
    Column("latency_p50_ms", "first event p50 ms", 2, "+"),
    Column("latency_p99_ms", "first event p99 ms", 2, "+"),
    Column("delay_p50_ms", "event delay p50 ms", 2, "+"),
    Column("delay_p99_ms", "event delay p99 ms", 2, "+"),
    Column("events_per_read", "events/read", 2),
    Column("slowest_stream_events_per_second", "slowest stream", 0),
)
HELD_COLUMNS = (
    Column("events_per_second", "events/s", 0, "x"),
    Column("streams_open", "open", 0),
    Column("latency_p50_ms", "first event p50 ms", 2, "+"),
    Column("delay_p99_ms", "event delay p99 ms", 2, "+"),
    Column("probe_p50_ms", "new request p50 ms", 2, "+"),
    Column("probe_p99_ms", "new request p99 ms", 2, "+"),
    Column("proxy_mib_before", "MiB before", 0),
    Column("proxy_mib_during", "during", 0),
    Column("proxy_mib_after", "after", 0),
    Column("proxy_kib_each", "KiB/stream", 1),
)
DISCONNECT_COLUMNS = (
    Column("gone_last_ms", "all gone after ms", 1, "+"),
    Column("gone_p50_ms", "half gone after ms", 1, "+"),
    Column("streams_open", "open before", 0),
    Column("streams_unnoticed", "never noticed", 0),
    Column("events_per_second", "events/s before", 0, "x"),
)


@dataclass(frozen=True)
class Scenario:
    """One load. Sizes are bytes of JSON; `tokens` and `tps` are those of one stream.

    subject     the question of the load; loads of one subject share a table
    seconds     duration of a stream; for held streams it follows from the window
    share       open loop: this part of the system's rate in a closed loop
    probes      requests per second beside held streams
    is_disconnecting  all clients of the held streams disconnect at once, and the backend tells when
                it noticed
    rounds      0: as many as are asked for
    left_out    systems that don't get this load
    """

    mode: Mode
    clients: int
    body_bytes: int
    response_bytes: int = DEFAULT_RESPONSE_BYTES
    tps: float = 0.0
    stream_seconds: float = 0.0
    subject: str = "requests"
    share: float = 0.0
    probes: float = 0.0
    is_disconnecting: bool = False
    rounds: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The load in one line."""
        if self.is_disconnecting:
            return f"{self.clients:,} clients disconnect at once, {self.tps:g} tokens/s each"
        if self.mode == "held":
            return (
                f"{self.clients:,} streams held open, {self.tps:g} tokens/s each, and"
                f" {self.probes:g} new requests/s"
            )
        if self.mode == "streams":
            return (
                f"{self.clients:,} streams at once, {self.tps:g} tokens/s each"
                f" ({self.stream_seconds:g} s a stream, request {self.body_bytes:,} B)"
            )
        sizes = f"(request {self.body_bytes:,} B, response {self.response_bytes:,} B)"
        if self.share:
            return f"{self.clients} connections, {self.share:.0%} of their most requests/s {sizes}"
        return f"{self.clients} clients, each asks again when answered {sizes}"

    @property
    def columns(self) -> Sequence[Column]:
        """The figures to show; the rounds are compared by the first one."""
        if self.is_disconnecting:
            return DISCONNECT_COLUMNS
        if self.mode == "held":
            return HELD_COLUMNS
        if self.mode == "streams":
            return STREAM_COLUMNS
        return OPEN_LOOP_COLUMNS if self.share else REQUEST_COLUMNS

    @property
    def is_closed_loop(self) -> bool:
        """Whether it asks for as much as the system can do."""
        return self.mode == "requests" and not self.share

    def plan(
        self, system: System, *, seconds: float, warm_up_seconds: float, rate: float = 0.0
    ) -> LoadPlan:
        """This load for that system. Raises ValueError when its backend would have to be asked."""
        if self.is_disconnecting and not system.backend_url:
            raise ValueError(f"{system.name}: where its backend listens is not known")
        ramp_seconds, stream_seconds = 0.0, self.stream_seconds
        if self.mode == "streams":
            # Begun spread over the length of one stream: else all events of all streams would
            # fall due in the same moment, which real clients never do.
            ramp_seconds = stream_seconds
        elif self.mode == "held":
            ramp_seconds = max(1.0, self.clients / OPENED_PER_SECOND)
            stream_seconds = ramp_seconds + warm_up_seconds + seconds + MARGIN_SECONDS
        tokens = max(1, round(self.tps * stream_seconds)) if self.tps else 0
        return LoadPlan(
            base_url=system.base_url,
            keys=system.keys,
            mode=self.mode,
            clients=self.clients,
            body=self._body(system.model, tokens),
            seconds=seconds,
            warm_up_seconds=warm_up_seconds,
            tokens=tokens,
            tps=self.tps,
            ramp_seconds=ramp_seconds,
            rate=rate,
            probes=self.probes,
            backend_url=system.backend_url if self.is_disconnecting else "",
        )

    def _body(self, model: str, tokens: int) -> dict[str, object]:
        """A chat request, filled up to `body_bytes` with prompt.

        The fake backend's own fields are sent only where they differ from its defaults, since
        some proxies refuse fields that OpenAI does not have.
        """
        user: dict[str, object] = {"role": "user", "content": ""}
        body: dict[str, object] = {
            "model": model,
            "messages": [{"role": "system", "content": SYSTEM_PROMPT}, user],
            "temperature": 0.7,
            "max_tokens": tokens or 100,
        }
        if self.mode != "requests":
            body["stream"] = True
            if self.tps != DEFAULT_TPS:
                body["tps"] = self.tps
        elif self.response_bytes != DEFAULT_RESPONSE_BYTES:
            body["response_bytes"] = self.response_bytes
        bare = len(json.dumps(body, separators=(",", ":")))
        user["content"] = ("word " * (self.body_bytes // 5 + 1))[: max(0, self.body_bytes - bare)]
        return body
