from __future__ import annotations

import logging

import pytest
import redis

from llamactl.core import events


@pytest.mark.parametrize(
    "error", [redis.ConnectionError("away"), PermissionError("broker/password: not readable")]
)
def test_event_that_cannot_be_sent_is_logged_and_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail() -> redis.Redis:
        raise error

    monkeypatch.setattr(events, "client", fail)
    with caplog.at_level(logging.WARNING, "llamactl.core.events"):
        events.publish({"topic": "instances", "name": "demo"})
    assert "change event of demo not sent" in caplog.text
