"""The banner as it is first rendered, and the state for pages without a stream."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from instances import lifecycle
from llamactl.core.change_feed import process_feed
from nodes.models import Node

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


@pytest.fixture
def silent_worker() -> None:
    lifecycle.create("one", {"backend_type": "llama_cpp"}, cause="test")
    Node.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=17))


PAGES = ("", "instances/instance/", "keys/inferencekey/add/", "auth/user/", "password_change/")


@pytest.mark.parametrize("path", PAGES)
def test_every_page_tells_of_a_silent_worker_without_a_script(
    operator: Client, silent_worker: None, path: str
) -> None:
    text = operator.get(f"/admin/{path}").content.decode()
    assert text.count('id="live-banner"') == 1
    assert 'data-problem="worker"' in text
    assert "Worker of node main silent for" in text


def test_login_page_and_a_page_without_problems_have_nothing_to_tell(operator: Client) -> None:
    Node.objects.update(heartbeat_at=timezone.now())
    assert "data-problem" not in operator.get("/admin/").content.decode()
    assert "live-banner" not in Client().get("/admin/login/").content.decode()


def test_state_is_what_a_stream_begins_with(
    operator: Client, silent_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_feed, "broker_lost_at", timezone.now())
    response = operator.get("/admin/stream")
    assert response["Cache-Control"].startswith("max-age=0, no-cache, no-store")
    problems = response.json()["problems"]
    assert 'data-problem="worker" data-node="main"' in problems
    assert "The broker does not answer" in problems


def test_state_needs_a_login_and_reads_alone(operator: Client) -> None:
    assert Client().get("/admin/stream").status_code == 401
    assert operator.post("/admin/stream").status_code == 405
