"""Save without a change: the form comes back as a browser sends it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from instances import lifecycle
from instances.errors import BackendStartFailed
from instances.models import Instance
from instances.states import ON_DEMAND, Status
from llamactl.config import current
from llamactl.models import Revision
from tests.support.browser_form import browser_form
from tests.support.observed import FAILURE, observe

pytestmark = pytest.mark.django_db

FULL: dict[str, Any] = {
    "backend_options": {
        "model": "/models/gemma.gguf",
        "ctx_size": 4096,
        "temp": 0.7,
        "mlock": True,
        "lora": ["a", "b"],
        "chat_template": "{{ a }}\n{{ b }}\n",
        "extra_args": {"new-flag": "one\r\ntwo", "other": ["x", "y"], "dash": "  padded "},
    },
    "environment": {
        "HF_TOKEN": "hf_1",
        "CERT": "first\nsecond\r\n",
        "PADDED": "  x ",
        "QUOTED": '"q"',
        "EMPTY": "",
        "HASH": "#=1",
        "TAB": "a\tb",
        "BIDI": "\u202ex",
    },
    "limits": {"nice": 5, "cpus": "0-3,8", "core_dumps": False},
    "working_directory": "/srv/with  blanks ",
    "command_override": " /opt/llama-server",
    "group": " large ",
    "idle_timeout": 9,
    "pinned": True,
    "docker_enabled": False,
}


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


def running(**document: Any) -> Instance:
    lifecycle.create("gemma", {"backend_type": "llama_cpp", **document}, cause="test")
    lifecycle.request_start("gemma", cause="test")
    observe("gemma", Status.RUNNING, pid=4711)
    return Instance.objects.get()


def save(client: Client, instance: Instance, **changes: str) -> Any:
    url = f"/admin/instances/instance/{instance.pk}/change/"
    page = client.get(url).content.decode()
    return client.post(url, browser_form(page, **changes), follow=True)


@pytest.mark.parametrize(
    "document",
    [
        FULL,
        {},
        {"backend_options": {"port": 1}},
        {"environment": {"A": "1\n2", "B": "\r"}},
        {"limits": {"cpus": [0, 1, 2], "memory_mb": 4096}},
        {"backend_type": "vllm", "backend_options": {"model": "o/m", "max_model_len": "32k"}},
        {"backend_type": "mlx_lm", "backend_options": {"model": "o/m"}},
        {
            "backend_options": {
                "chat_template": "\n\nb\n",
                "extra_args": {"z": "\n", "a": {"b": [1, 2.0]}},
            }
        },
    ],
    ids=["full", "defaults", "port", "lines", "limits", "vllm", "mlx", "further"],
)
def test_save_without_a_change_does_nothing(operator: Client, document: dict[str, Any]) -> None:
    if "port" in document.get("backend_options", {}):
        document = {"backend_options": {"port": current().instances.port_range[0] + 7}}
    instance = running(**document)
    before = (Instance.objects.values().get(), Revision.numbers())
    response = save(operator, instance)
    assert [str(text) for text in response.context["messages"]] == ["Nothing changed in gemma."]
    assert (Instance.objects.values().get(), Revision.numbers()) == before
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(
    ("changes", "is_restarted", "said"),
    [
        ({"idle_timeout": "10"}, False, "Saved the options of gemma."),
        ({"group": "small"}, False, "Saved the options of gemma."),
        ({"max_restarts": "9"}, False, "Saved the options of gemma."),
        ({"environment": "A=1"}, True, "Saved the options of gemma; it is restarted."),
        ({"limits": '{"nice": 6}'}, True, "Saved the options of gemma; it is restarted."),
        ({"ctx_size": "8192"}, True, "Saved the options of gemma; it is restarted."),
    ],
)
def test_save_restarts_only_for_a_change_of_the_launch(
    operator: Client, changes: dict[str, str], is_restarted: bool, said: str
) -> None:
    instance = running(**FULL)
    response = save(operator, instance, save_anyway="on", **changes)
    assert said in [str(text) for text in response.context["messages"]]
    instance.refresh_from_db()
    assert instance.generation == (2 if is_restarted else 1)
    assert LogEntry.objects.count() == 1


def test_change_of_one_field_leaves_the_others_byte_for_byte(operator: Client) -> None:
    instance = running(**FULL)
    before = instance.options
    save(operator, instance, save_anyway="on", idle_timeout="10")
    instance.refresh_from_db()
    assert instance.options == {**before, "idle_timeout": 10}


@pytest.mark.parametrize("changes", [{}, {"idle_timeout": "10"}])
def test_save_ends_the_hold_of_a_failed_start(operator: Client, changes: dict[str, str]) -> None:
    """With a change or without: its operator may have mended a file beside it."""
    lifecycle.create("gemma", FULL, cause="test")
    lifecycle.request_start("gemma", cause=ON_DEMAND)
    until = timezone.now() + timedelta(seconds=200)
    observe("gemma", Status.FAILED, failure=FAILURE, failure_hold_until=until)
    with pytest.raises(BackendStartFailed):
        lifecycle.request_start("gemma", cause=ON_DEMAND)
    save(operator, Instance.objects.get(), save_anyway="on", **changes)
    assert lifecycle.request_start("gemma", cause=ON_DEMAND).generation == 2
