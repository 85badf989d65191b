from __future__ import annotations

import os

from llamactl.server.liveness import INTERVAL_SECONDS, LATE_SECONDS, HeartbeatPipe, Liveness


class Probe:
    """Answers while ``is_answering``."""

    def __init__(self) -> None:
        self.is_answering = True
        self.began = 0

    def begin(self) -> None:
        self.began += 1

    def has_answered(self) -> bool:
        return self.is_answering

    def close(self) -> None:
        """Nothing is open."""


def test_three_unanswered_probes_in_a_row_are_a_hang() -> None:
    probe = Probe()
    liveness = Liveness(probe, 0.0)
    probe.is_answering = False
    assert not liveness.is_hung(INTERVAL_SECONDS)
    assert not liveness.is_hung(2 * INTERVAL_SECONDS)
    probe.is_answering = True
    assert not liveness.is_hung(3 * INTERVAL_SECONDS)
    probe.is_answering = False
    found = [liveness.is_hung(number * INTERVAL_SECONDS) for number in (4, 5, 5.5, 6)]
    assert found == [False, False, False, True]
    assert probe.began == 7


def test_a_probe_does_not_count_while_our_own_tick_is_late() -> None:
    probe = Probe()
    probe.is_answering = False
    liveness = Liveness(probe, 0.0)
    now = 0.0
    for _ in range(10):  # a starved machine
        now += INTERVAL_SECONDS + LATE_SECONDS + 0.1
        assert not liveness.is_hung(now)
    now += 3600  # a suspended machine
    assert not liveness.is_hung(now)
    found = [liveness.is_hung(now + number * INTERVAL_SECONDS) for number in (1, 2, 3)]
    assert found == [False, False, True]


def test_a_heartbeat_counts_once() -> None:
    pipe = HeartbeatPipe()
    assert not pipe.has_answered()
    os.write(pipe.writer, b"\0\0")
    assert pipe.has_answered()
    assert not pipe.has_answered()
    pipe.close_writer()
    assert not pipe.has_answered()
    pipe.close()
