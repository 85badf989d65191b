from __future__ import annotations

import logging
import socket
from functools import partial

import pytest
import redis
from django.db import transaction
from redis.backoff import NoBackoff
from redis.retry import Retry

from instances import wake
from llamactl.core import events
from llamactl.core.background_sender import BackgroundSender
from llamactl.models import Topic


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> BackgroundSender:
    sender = BackgroundSender("messages to the broker")
    monkeypatch.setattr(events, "broker_messages", sender)
    monkeypatch.setattr(wake, "broker_messages", sender)
    return sender


@pytest.mark.parametrize(
    "error", [redis.ConnectionError("away"), PermissionError("broker/password: not readable")]
)
def test_event_that_cannot_be_sent_is_logged_and_costs_nothing_else(
    sender: BackgroundSender,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def fail() -> redis.Redis:
        raise error

    monkeypatch.setattr(events, "client", fail)
    with caplog.at_level(logging.WARNING, "llamactl.core.background_sender"):
        events.publish({"topic": "instances", "name": "demo"})
        assert sender.flush(30)
    assert f"messages to the broker: not sent (each receiver polls once a second): {error}" in (
        caplog.text
    )


@pytest.mark.django_db(transaction=True)
def test_a_transaction_sends_one_wake_up_of_each_node(
    sender: BackgroundSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(wake, "_send", sent.append)
    monkeypatch.setattr(events, "_send", sent.append)
    # The thread should find all of the transaction's messages at once.
    with sender._changed, transaction.atomic():
        events.announce(Topic.INSTANCES, "one")
        for node in ("main", "main", "other", "main"):
            transaction.on_commit(partial(wake.wake_node, node))
    assert sender.flush(30)
    assert sent == ['{"topic": "instances", "name": "one"}', "main", "other"]


def test_after_a_timeout_no_command_is_tried_for_a_second() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # accepts nothing, answers nothing
        client = events._Client(
            host="127.0.0.1",
            port=hanging.getsockname()[1],
            socket_timeout=0.05,
            retry=Retry(NoBackoff(), 0),
        )
        with client, pytest.raises(redis.TimeoutError):
            client.ping()
        with pytest.raises(redis.ConnectionError, match="did not answer a moment ago"):
            client.ping()
