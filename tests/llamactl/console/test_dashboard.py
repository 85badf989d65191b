"""The admin's index page and sidebar, by the user's permissions."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from instances import lifecycle
from instances.models import Instance, StatusChange
from instances.states import Status
from nodes.models import Node

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


def staff(*codenames: str) -> Client:
    user = User.objects.create_user("sven", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def create(name: str, status: Status) -> None:
    instance = lifecycle.create(name, {"backend_type": "llama_cpp"}, cause="test")
    if status is not Status.STOPPED:
        lifecycle.request_start(name, cause="test")
    Instance.objects.filter(pk=instance.pk).update(status=status, observed_generation=1)
    StatusChange.objects.create(
        instance=instance, old="stopped", new=status, reason=f"because-{name}", cause="x"
    )


def test_index_counts_instances_by_status_and_shows_nodes_and_changes(operator: Client) -> None:
    for number, status in enumerate((Status.RUNNING, Status.RUNNING, Status.FAILED)):
        create(f"i{number}", status)
    Node.objects.update(heartbeat_at=timezone.now())
    response = operator.get("/admin/")
    counts = {tile.label: tile.count for tile in response.context["dashboard"].tiles}
    assert counts == {"instances": 3, "running": 2, "starting": 0, "failed": 1, "stopped": 0}
    text = response.content.decode()
    for expected in ("because-i2", "alive", "New instance", "New key", "?status=failed"):
        assert expected in text


def test_index_makes_the_same_queries_for_any_number_of_rows(
    operator: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        create(f"i{number}", Status.RUNNING)
        Node.objects.create(name=f"n{number}")
    # session, user, counts, changes, nodes, the banner
    with django_assert_max_num_queries(6):
        operator.get("/admin/")


def test_index_respects_the_users_permissions() -> None:
    create("secret-name", Status.RUNNING)
    text = staff().get("/admin/").content.decode()
    for hidden in ("secret-name", "New instance", "/admin/instances/", "/admin/nodes/"):
        assert hidden not in text


def test_sidebar_respects_the_users_permissions() -> None:
    text = staff("view_node").get("/admin/").content.decode()
    assert "/admin/nodes/node/" in text
    assert "/admin/keys/" not in text
    assert "/admin/auth/" not in text


def test_index_without_instances_names_the_first_step(operator: Client) -> None:
    assert "There are no instances yet" in operator.get("/admin/").content.decode()


@pytest.mark.parametrize("path", ["auth/user/", "auth/user/add/", "auth/group/", "auth/group/add/"])
def test_user_pages_open(operator: Client, path: str) -> None:
    assert operator.get(f"/admin/{path}").status_code == 200
