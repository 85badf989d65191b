"""Admin pages of the nodes: read-only, but for drain, resume and the deletion of a dead node."""

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


def test_list_shows_which_workers_are_alive(operator: Client) -> None:
    now = timezone.now()
    Node.objects.create(name="here", heartbeat_at=now)
    Node.objects.create(name="gone", heartbeat_at=now - timedelta(hours=3), address="10.0.0.2")
    Node.objects.create(name="new", address="<script>alert(1)</script>")
    text = operator.get(LIST).content.decode()
    for expected in ("alive", "gone", "no heartbeat", "3 h ago", "10.0.0.2", "this host"):
        assert expected in text
    assert "<script>alert" not in text


def test_no_page_adds_or_edits_a_node(operator: Client) -> None:
    node = Node.objects.create(name="a", heartbeat_at=timezone.now())
    assert operator.get(f"{LIST}{node.pk}/change/").status_code == 200
    for path in ("add/", f"{node.pk}/change/", f"{node.pk}/delete/"):
        assert operator.post(LIST + path, {"name": "b", "post": "yes"}).status_code == 403, path
    assert Node.objects.get().name == "a"


def test_dead_node_without_instances_can_be_deleted(operator: Client) -> None:
    node = Node.objects.create(name="gone")
    operator.post(f"{LIST}{node.pk}/delete/", {"post": "yes"})
    assert not Node.objects.exists()
    kept = lifecycle.create("a", {"backend_type": "llama_cpp"}, cause="test").node
    operator.post(f"{LIST}{kept.pk}/delete/", {"post": "yes"})
    assert Node.objects.get() == kept


def test_node_is_drained_and_resumed_by_its_actions(operator: Client) -> None:
    lifecycle.create("a", {"backend_type": "llama_cpp"}, cause="test")
    node = lifecycle.request_start("a", cause="test").node
    for action, message, desired_state in (
        ("drain_selected", "stop requested for: a", "stopped"),
        ("resume_selected", "start requested for: a", "running"),
    ):
        chosen = {"action": action, "_selected_action": [node.pk]}
        text = operator.post(LIST, chosen, follow=True).content.decode()
        assert message in text
        assert lifecycle.get("a").desired_state == desired_state
    node_drain.drain("main")
    assert "drained" in operator.get(LIST).content.decode()


def test_viewer_cannot_drain(client: Client) -> None:
    user = User.objects.create_user("vera", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_node"))
    client.force_login(user)
    node = Node.objects.create(name="main")
    client.post(LIST, {"action": "drain_selected", "_selected_action": [node.pk]})
    assert not Node.objects.get().is_drained
