"""What is measured: the loads that every system gets, and the figures shown for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from bench.fake_backend import DEFAULT_RESPONSE_BYTES, DEFAULT_TPS
from bench.plan import LoadPlan, Mode
from bench.systems import System

SYSTEM_PROMPT = "You are a helpful assistant."


@dataclass(frozen=True)
class Column:
    """One figure of the table: its key among the figures, its heading, and how it is written.

    `compared` is how it is set against the direct system: as a ratio ("x"), as what the proxy
    adds ("+"), or not at all ("").
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
STREAM_COLUMNS = (
    Column("events_per_second", "events/s", 0, "x"),
    Column("latency_p50_ms", "first event p50 ms", 2, "+"),
    Column("latency_p99_ms", "first event p99 ms", 2, "+"),
    Column("delay_p50_ms", "event delay p50 ms", 2, "+"),
    Column("delay_p99_ms", "event delay p99 ms", 2, "+"),
    Column("events_per_read", "events/read", 2),
    Column("slowest_stream_events_per_second", "slowest stream", 0),
)


@dataclass(frozen=True)
class Scenario:
    """One load. Sizes are bytes of JSON; `tokens` and `tps` are those of one stream."""

    mode: Mode
    clients: int
    body_bytes: int
    response_bytes: int = DEFAULT_RESPONSE_BYTES
    tokens: int = 0
    tps: float = 0.0

    @property
    def title(self) -> str:
        """One line that says what the load is."""
        if self.mode == "requests":
            return (
                f"{self.clients} clients, each asks again when answered"
                f" (request {self.body_bytes} B, response {self.response_bytes} B)"
            )
        return (
            f"{self.clients} streams at once, {self.tps:g} tokens/s each"
            f" ({self.tokens} tokens a stream, request {self.body_bytes} B)"
        )

    @property
    def columns(self) -> Sequence[Column]:
        """The figures to show; the first one is the rate of this scenario."""
        return REQUEST_COLUMNS if self.mode == "requests" else STREAM_COLUMNS

    def plan(self, system: System, *, seconds: float, warm_up_seconds: float) -> LoadPlan:
        """This load for that system."""
        return LoadPlan(
            base_url=system.base_url,
            keys=system.keys,
            mode=self.mode,
            clients=self.clients,
            body=self._body(system.model),
            seconds=seconds,
            warm_up_seconds=warm_up_seconds,
            tokens=self.tokens,
            tps=self.tps,
        )

    def _body(self, model: str) -> dict[str, object]:
        """A chat request, filled up to `body_bytes` with prompt.

        The fake backend's own fields are sent only where they differ from its defaults, since
        some proxies refuse fields that OpenAI does not have.
        """
        user: dict[str, object] = {"role": "user", "content": ""}
        body: dict[str, object] = {
            "model": model,
            "messages": [{"role": "system", "content": SYSTEM_PROMPT}, user],
            "temperature": 0.7,
            "max_tokens": self.tokens or 100,
        }
        if self.mode == "streams":
            body["stream"] = True
            if self.tps != DEFAULT_TPS:
                body["tps"] = self.tps
        elif self.response_bytes != DEFAULT_RESPONSE_BYTES:
            body["response_bytes"] = self.response_bytes
        bare = len(json.dumps(body, separators=(",", ":")))
        user["content"] = ("word " * (self.body_bytes // 5 + 1))[: max(0, self.body_bytes - bare)]
        return body
