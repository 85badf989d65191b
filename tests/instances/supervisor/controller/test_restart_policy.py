from __future__ import annotations

from dataclasses import replace

import pytest

from instances.supervisor.controller.restart_policy import (
    Crash,
    RestartPolicy,
    restart_delay,
    stable_seconds,
)

POLICY = RestartPolicy(auto_restart=True, max_restarts=3, delay_seconds=5)
CRASH = Crash(restarts=0, has_been_ready=True, is_retryable=True)


@pytest.mark.parametrize(
    ("restarts", "seconds"), [(0, 5), (1, 10), (2, 20), (3, 40), (4, 60), (5, 60), (5000, 60)]
)
def test_each_restart_waits_twice_as_long_up_to_a_minute(restarts: int, seconds: float) -> None:
    policy = replace(POLICY, max_restarts=10_000)
    assert restart_delay(policy, replace(CRASH, restarts=restarts)) == seconds


def test_a_delay_above_a_minute_is_kept_and_not_doubled() -> None:
    policy = replace(POLICY, delay_seconds=300)
    assert restart_delay(policy, CRASH) == 300
    assert restart_delay(policy, replace(CRASH, restarts=2)) == 300


def test_a_delay_of_zero_stays_zero() -> None:
    assert restart_delay(replace(POLICY, delay_seconds=0), replace(CRASH, restarts=2)) == 0


@pytest.mark.parametrize(
    ("policy", "crash"),
    [
        pytest.param(replace(POLICY, auto_restart=False), CRASH, id="off"),
        pytest.param(replace(POLICY, max_restarts=0), CRASH, id="none allowed"),
        pytest.param(POLICY, replace(CRASH, restarts=3), id="all used up"),
        pytest.param(POLICY, replace(CRASH, has_been_ready=False), id="a first start"),
        pytest.param(POLICY, replace(CRASH, is_retryable=False), id="would fail again"),
    ],
)
def test_a_crash_is_final(policy: RestartPolicy, crash: Crash) -> None:
    assert restart_delay(policy, crash) is None


@pytest.mark.parametrize(("delay", "seconds"), [(0, 60), (5, 60), (6, 60), (7, 70), (60, 600)])
def test_stable_is_a_minute_or_ten_delays(delay: float, seconds: float) -> None:
    assert stable_seconds(replace(POLICY, delay_seconds=delay)) == seconds
