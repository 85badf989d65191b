from __future__ import annotations

import select

from instances.supervisor.wakeup import Wakeup


def rings(bell: Wakeup) -> bool:
    return bool(select.select([bell], [], [], 0)[0])


def test_a_bell_rings_until_it_is_quietened() -> None:
    bell = Wakeup()
    try:
        assert not rings(bell)
        for _ in range(100_000):  # more than a pipe holds
            bell.ring()
        assert rings(bell)
        bell.quiet()
        assert not rings(bell)
    finally:
        bell.close()


def test_a_closed_bell_rings_nobody() -> None:
    bell = Wakeup()
    bell.close()
    bell.ring()
