"""The feed of changes: events are passed on, and lost ones are noticed by the revisions."""

from __future__ import annotations

import json

import pytest

from llamactl.core.change_feed import HEALTH, ChangeFeed


class Heard:
    """A feed under a clock of the test, and what its follower was told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.feed = ChangeFeed(lambda: self.now)
        self.changes: list[tuple[str, str]] = []
        self.feed.follow(lambda topic, name: self.changes.append((topic, name)))

    def event(self, name: str) -> None:
        self.feed.heard(json.dumps({"topic": "instances", "name": name}).encode())


def test_an_event_is_passed_on_at_once_and_its_revision_is_no_further_change() -> None:
    heard = Heard()
    heard.feed.refreshed({"instances": 7})
    heard.event("gemma")
    for heard.now in (0.0, 1.0, 2.0):
        heard.feed.refreshed({"instances": 8})
    assert heard.changes == [("instances", "gemma")]


def test_a_lost_event_is_passed_on_as_a_change_of_unknown_rows_a_second_later() -> None:
    heard = Heard()
    heard.feed.refreshed({"instances": 7})
    heard.feed.refreshed({"instances": 8})
    assert heard.changes == []  # the event may be on its way
    heard.now = 1.0
    heard.feed.refreshed({"instances": 8})
    heard.feed.refreshed({"instances": 8})
    assert heard.changes == [("instances", "")]


def test_without_a_broker_each_new_revision_is_passed_on_at_once() -> None:
    heard = Heard()
    heard.feed.refreshed({"instances": 7})
    heard.feed.broker_lost()
    heard.feed.broker_lost()
    heard.feed.refreshed({"instances": 9})
    assert heard.changes == [(HEALTH, ""), ("instances", "")]
    heard.feed.broker_found()
    assert heard.changes[2:] == [(HEALTH, "")]


def test_a_database_is_lost_from_the_first_failure_to_the_first_refresh() -> None:
    heard = Heard()
    heard.feed.database_lost()
    since = heard.feed.database_lost_at
    heard.feed.database_lost()
    assert heard.feed.database_lost_at == since is not None
    heard.feed.refreshed({})
    assert heard.feed.database_lost_at is None
    assert heard.changes == [(HEALTH, "")] * 2


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"[]", b'{"topic": "x"}', b"null", b"[" * 10_000]
)
def test_a_payload_of_another_form_counts_as_any_change(payload: bytes) -> None:
    heard = Heard()
    heard.feed.heard(payload)
    assert heard.changes == [("instances", "")]
