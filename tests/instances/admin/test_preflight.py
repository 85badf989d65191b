"""The check of what is submitted to the admin: errors by their field, and how to save anyway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from instances import lifecycle
from instances.models import Instance
from tests.instances.admin.test_pages import ADD, LIST, page, texts
from tests.instances.admin.test_pages import form_data as data_that_is_saved_anyway

pytestmark = pytest.mark.django_db

PARSE = f"{LIST}parse-command/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


def form_data(client: Client, url: str, **changes: object) -> dict[str, Any]:
    data = data_that_is_saved_anyway(client, url, **changes)
    if "save_anyway" not in changes:
        del data["save_anyway"]
    return data


def submit(client: Client, url: str = ADD, **changes: object) -> Any:
    return client.post(url, form_data(client, url, **changes))


def errors(response: Any) -> dict[str, list[str]]:
    return dict(response.context["adminform"].form.errors)


def test_error_stands_next_to_its_field_and_nothing_is_saved(operator: Client) -> None:
    response = submit(
        operator,
        name="x",
        model="/nonexistent/m.gguf",
        command_override="/nonexistent/server",
        further_options='{"mmproj": "/nonexistent/p.gguf"}',
    )
    found = errors(response)
    assert found["model"] == ["'/nonexistent/m.gguf' does not exist"]
    assert "was not found" in found["command_override"][0]
    assert found["further_options"] == [
        "backend_options.mmproj: '/nonexistent/p.gguf' does not exist"
    ]
    assert "Save anyway" in response.content.decode()
    assert not Instance.objects.exists()


def test_warnings_are_told_beside_the_errors(operator: Client) -> None:
    response = submit(
        operator, name="x", model="/nonexistent/m.gguf", further_options='{"ctx_sise": 5}'
    )
    (told,) = texts(response)
    assert "did you mean --ctx-size?" in told


def test_operator_may_know_better(operator: Client) -> None:
    response = submit(operator, name="x", model="/nonexistent/m.gguf", save_anyway="on")
    assert response.status_code == 302
    assert Instance.objects.get().options["backend_options"] == {"model": "/nonexistent/m.gguf"}
    told = texts(operator.get(response.url))
    assert "backend_options.model: '/nonexistent/m.gguf' does not exist" in told


def test_warning_is_told_after_saving(operator: Client, gemma_model: Path) -> None:
    response = submit(operator, name="x", model=str(gemma_model), further_options='{"ctx_sise": 5}')
    assert response.status_code == 302
    told = " ".join(texts(operator.get(response.url)))
    assert "--ctx-sise is not in the help of the bundled llama.cpp server" in told
    assert "did you mean --ctx-size?" in told


def test_good_options_are_saved_without_a_word(operator: Client, gemma_model: Path) -> None:
    assert b"Save anyway" not in operator.get(ADD).content
    response = submit(operator, name="x", model=str(gemma_model))
    assert texts(operator.get(response.url)) == ["Created x."]


def test_change_is_checked_and_saving_without_one_is_not(operator: Client) -> None:
    document = {"backend_options": {"model": "/nonexistent/m.gguf"}}
    instance = lifecycle.create("x", document, cause="test")
    assert submit(operator, page(instance)).status_code == 302
    response = submit(operator, page(instance), threads="2")
    assert list(errors(response)) == ["model"]
    assert submit(operator, page(instance), threads="2", save_anyway="on").status_code == 302
    instance.refresh_from_db()
    assert instance.options["backend_options"]["threads"] == 2


def test_hostile_path_is_shown_as_text(operator: Client) -> None:
    response = submit(operator, name="x", model="/<script>alert(1)</script>\u202e")
    assert "<script>alert(1)" not in response.content.decode()
    assert "\u202e" not in errors(response)["model"][0]


def test_refused_name_is_told_before_anything_is_checked(operator: Client) -> None:
    response = submit(operator, name="a b", model="/nonexistent/m.gguf", save_anyway="on")
    assert list(errors(response)) == ["name"]


def test_check_holds_no_transaction(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """No database lock is held while a slow program prints its help."""
    from django.db import connection

    from instances import local_agent
    from instances.preflight.check import check_options as real

    depths = []
    outside = len(connection.savepoint_ids)

    def check(*args: Any, **options: Any) -> Any:
        depths.append(len(connection.savepoint_ids))
        return real(*args, **options)

    monkeypatch.setattr(local_agent, "check_options", check)
    submit(operator, name="x", model="/nonexistent/m.gguf")
    assert depths == [outside]


def test_without_permission_to_add_no_check_runs(client: Client) -> None:
    client.force_login(User.objects.create_user("sven", is_staff=True))
    response = client.post(ADD, {"name": "x", "backend_type": "llama_cpp", "model": "/etc/x"})
    assert response.status_code == 403
    assert client.post(PARSE, {"command": "llama-server -m /etc/x"}).status_code == 403


def test_pasted_command_is_checked(operator: Client) -> None:
    command = "llama-server -m /nonexistent/m.gguf --ctx-sise 5"
    response = operator.post(PARSE, {"backend_type": "llama_cpp", "command": command})
    first, second = response.json()["findings"]
    assert first == {
        "severity": "error",
        "text": "backend_options.model: '/nonexistent/m.gguf' does not exist",
    }
    assert second["severity"] == "warning"
    assert "did you mean --ctx-size?" in second["text"]


def test_change_page_shows_the_command_with_permission_to_change(operator: Client) -> None:
    document = {"backend_options": {"model": "/m/<b>.gguf", "hf_token": "s3cret"}}
    instance = lifecycle.create("x", document, cause="test")
    text = operator.get(page(instance)).content.decode()
    shown = text.partition('id="command-line">')[2].partition("</pre>")[0]
    assert f"--port {instance.port}" in shown
    assert "&lt;b&gt;.gguf" in shown
    assert "s3cret" not in shown
