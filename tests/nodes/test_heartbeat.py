"""Heartbeats and what they say of a node."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from nodes.heartbeat import write_heartbeat
from nodes.models import Node

pytestmark = pytest.mark.django_db


def test_heartbeat_makes_its_node_alive() -> None:
    Node.objects.create(name="one", heartbeat_at=timezone.now() - timedelta(hours=1))
    other = Node.objects.create(name="two")
    write_heartbeat("one")
    assert Node.objects.get(name="one").is_alive(timezone.now())
    other.refresh_from_db()
    assert other.heartbeat_at is None


def test_first_heartbeat_creates_the_node() -> None:
    write_heartbeat("new")
    node = Node.objects.get()
    assert (node.name, node.kind) == ("new", Node.Kind.WORKER)
    assert node.is_alive(timezone.now())


def test_heartbeat_from_before_the_clock_was_set_back_is_stale() -> None:
    write_heartbeat("one")
    assert not Node.objects.get().is_alive(timezone.now() - timedelta(hours=1))
