"""Liveness probe under a stepped clock; with real processes see test_hangs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from instances.supervisor.context import LONG_AGO, SupervisorContext
from instances.supervisor.controller.health_check import ProbeAnswer
from instances.supervisor.controller.liveness_probe import LivenessProbe
from instances.supervisor.controller.spawn import Endpoint
from instances.supervisor.state.rows import Row

PROBE_SECONDS = 2.0
"""Timeout of a probe without an answer."""


class FakeContext:
    """Time passes when it is told to, and a backend answers or doesn't."""

    def __init__(self, timeout: float) -> None:
        self.now = 0.0
        self.answers = True
        self.config = SimpleNamespace(instances=SimpleNamespace(unhealthy_timeout=timeout))
        self.probe = LivenessProbe(
            cast(Row, SimpleNamespace(name="one", options={"backend_type": "llama_cpp"})),
            Endpoint("http://127.0.0.1:1", ("/health",), "127.0.0.1", 1),
            cast(SupervisorContext, self),
            self.now,
        )

    def clock(self) -> float:
        return self.now

    def check_health(self, *_: object) -> ProbeAnswer:
        return ProbeAnswer(self.answers)

    def off_thread(self, work: Any, then: Any, *, on_error: object) -> None:
        answer = work()
        self.now += 0.01 if answer.is_ready else PROBE_SECONDS
        then(answer)

    def traffic(self) -> Any:
        return SimpleNamespace(read_at=self.now, last_byte=lambda name: LONG_AGO)

    def hung_after(self, within_seconds: float) -> float | None:
        """When it counts as hung; ``None``: not in that time."""
        until = self.now + within_seconds
        while self.now < until:
            if self.probe.is_hung(self.now):
                return self.now
            self.now = max(self.now + 0.01, min(self.probe.due, until))
            self.probe.step(self.now)
        return None


@pytest.mark.parametrize("timeout", [1.0, 4.0, 8.0, 60.0])
def test_silence_for_the_timeout_is_a_hang(timeout: float) -> None:
    context = FakeContext(timeout)
    assert context.hung_after(10 * timeout) is None
    context.answers = False
    began = context.now
    hung = context.hung_after(10 * timeout + 20)
    assert hung is not None
    # From the last answer on, which came up to three quarters of it before.
    assert timeout / 4 <= hung - began <= timeout + 2 * PROBE_SECONDS + 5


@pytest.mark.parametrize("timeout", [1.0, 4.0, 8.0, 60.0])
def test_one_unanswered_probe_is_no_hang(timeout: float) -> None:
    context = FakeContext(timeout)
    for _ in range(5):
        context.answers = False
        while not context.probe.is_unresponsive:
            assert not context.probe.is_hung(context.now)
            context.now = max(context.now + 0.01, context.probe.due)
            context.probe.step(context.now)
        assert not context.probe.is_hung(context.now)
        context.answers = True
        context.now = context.probe.due
        context.probe.step(context.now)
        assert not context.probe.is_unresponsive
