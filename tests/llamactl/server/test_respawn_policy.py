"""The respawn policy, without processes."""

from __future__ import annotations

import pytest

from llamactl.server.respawn_policy import RespawnPolicy


@pytest.mark.parametrize(
    ("failures", "delay"),
    [
        ([100.0], 1.0),
        ([90.0, 100.0], 2.0),
        ([80.0, 90.0, 100.0], 4.0),
        ([70.0, 80.0, 90.0, 100.0], 8.0),
        ([60.0, 70.0, 80.0, 90.0, 100.0], None),
        # A failure a minute ago does not count.
        ([40.0, 70.0, 80.0, 90.0, 100.0], 8.0),
        ([1.0, 2.0, 3.0, 4.0, 100.0], 1.0),
    ],
)
def test_the_delay_doubles_until_the_last_respawn(
    failures: list[float], delay: float | None
) -> None:
    assert RespawnPolicy().delay_after(failures, now=100.0) == delay
