"""The admin's list of nodes: to be looked at; only a node that is gone may be forgotten."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from instances import lifecycle, node_drain
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


def test_node_is_drained_and_resumed_by_its_actions(operator: Client) -> None:
    lifecycle.create("a", {"backend_type": "llama_cpp"}, cause="test")
    node = lifecycle.request_start("a", cause="test").node
    for action, said, wish in (
        ("drain_selected", "asked to stop: a", "stopped"),
        ("resume_selected", "asked to start: a", "running"),
    ):
        chosen = {"action": action, "_selected_action": [node.pk]}
        text = operator.post(LIST, chosen, follow=True).content.decode()
        assert said in text
        assert lifecycle.get("a").desired_state == wish
    node_drain.drain("main")
    assert "drained" in operator.get(LIST).content.decode()


def test_who_may_only_look_can_not_drain(client: Client) -> None:
    user = User.objects.create_user("vera", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_node"))
    client.force_login(user)
    node = Node.objects.create(name="main")
    client.post(LIST, {"action": "drain_selected", "_selected_action": [node.pk]})
    assert not Node.objects.get().is_drained
