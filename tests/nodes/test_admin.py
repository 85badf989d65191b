"""The admin's list of nodes: to be looked at; only a node that is gone may be forgotten."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from instances import lifecycle
from nodes.models import Node

pytestmark = pytest.mark.django_db

LIST = "/admin/nodes/node/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


def test_list_says_who_is_there_and_who_is_not(operator: Client) -> None:
    now = timezone.now()
    Node.objects.create(name="here", heartbeat_at=now)
    Node.objects.create(name="gone", heartbeat_at=now - timedelta(hours=3), address="10.0.0.2")
    Node.objects.create(name="new", address="<script>alert(1)</script>")
    text = operator.get(LIST).content.decode()
    for expected in ("alive", "gone", "no heartbeat", "3 h ago", "10.0.0.2", "this host"):
        assert expected in text
    assert "<script>alert" not in text


def test_nodes_are_not_made_or_changed_by_hand(operator: Client) -> None:
    node = Node.objects.create(name="a", heartbeat_at=timezone.now())
    assert operator.get(f"{LIST}{node.pk}/change/").status_code == 200
    for path in ("add/", f"{node.pk}/change/", f"{node.pk}/delete/"):
        assert operator.post(LIST + path, {"name": "b", "post": "yes"}).status_code == 403, path
    assert Node.objects.get().name == "a"


def test_node_that_is_gone_may_be_forgotten_unless_it_has_instances(operator: Client) -> None:
    node = Node.objects.create(name="gone")
    operator.post(f"{LIST}{node.pk}/delete/", {"post": "yes"})
    assert not Node.objects.exists()
    kept = lifecycle.create("a", {"backend_type": "llama_cpp"}, cause="test").node
    operator.post(f"{LIST}{kept.pk}/delete/", {"post": "yes"})
    assert Node.objects.get() == kept
