"""The restart policy, without processes."""

from __future__ import annotations

import pytest

from llamactl.server.respawn_policy import RespawnPolicy


@pytest.mark.parametrize(
    ("deaths", "delay"),
    [
        ([100.0], 1.0),
        ([90.0, 100.0], 2.0),
        ([80.0, 90.0, 100.0], 4.0),
        ([70.0, 80.0, 90.0, 100.0], 8.0),
        ([60.0, 70.0, 80.0, 90.0, 100.0], None),
        # A death a minute ago is forgiven.
        ([40.0, 70.0, 80.0, 90.0, 100.0], 8.0),
        ([1.0, 2.0, 3.0, 4.0, 100.0], 1.0),
    ],
)
def test_the_delay_doubles_until_it_gives_up(deaths: list[float], delay: float | None) -> None:
    assert RespawnPolicy().delay_after(deaths, now=100.0) == delay
