from __future__ import annotations

import select

from instances.supervisor.wakeup import Wakeup


def is_awake(wakeup: Wakeup) -> bool:
    return bool(select.select([wakeup], [], [], 0)[0])


def test_a_wakeup_stays_readable_until_it_is_cleared() -> None:
    wakeup = Wakeup()
    try:
        assert not is_awake(wakeup)
        for _ in range(100_000):  # more than a pipe holds
            wakeup.wake()
        assert is_awake(wakeup)
        wakeup.clear()
        assert not is_awake(wakeup)
    finally:
        wakeup.close()


def test_a_closed_wakeup_does_nothing() -> None:
    wakeup = Wakeup()
    wakeup.close()
    wakeup.wake()
