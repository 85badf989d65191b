"""What the API says about options that are in order, but don't fit what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from instances.models import Instance

pytestmark = pytest.mark.django_db
URL = "/api/v1/instances/x"


def send(api: Client, method: str, query: str = "", **document: Any) -> Any:
    return api.generic(method, f"{URL}{query}", json.dumps(document), "application/json")


def faulty(**options: Any) -> dict[str, Any]:
    return {"model": "/nonexistent/m.gguf", "ctx_sise": 512, **options}


def test_faulty_options_are_saved_with_warnings(api: Client) -> None:
    """It should do what the seed does: the download may not be finished yet."""
    response = send(api, "POST", backend_options=faulty())
    assert response.status_code == 201
    assert response.json()["warnings"] == [
        {
            "field": "backend_options.model",
            "severity": "error",
            "message": "'/nonexistent/m.gguf' does not exist",
            "suggestion": "",
        },
        {
            "field": "backend_options.extra_args.ctx_sise",
            "severity": "warning",
            "message": "--ctx-sise is not in the help of the bundled llama.cpp server",
            "suggestion": "did you mean --ctx-size?",
        },
    ]
    assert len(send(api, "PUT", backend_options=faulty()).json()["warnings"]) == 2
    assert "warnings" not in api.get(URL).json()


def test_good_options_are_answered_without_a_word(api: Client, gemma_model: Path) -> None:
    response = send(api, "POST", backend_options={"model": str(gemma_model)})
    assert response.status_code == 201
    assert "warnings" not in response.json()


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_strict_saves_nothing_that_is_faulty(api: Client, method: str) -> None:
    if method == "PUT":
        send(api, "POST", backend_options={"threads": 1})
    before = list(Instance.objects.values())
    response = send(api, method, "?strict=true", backend_options=faulty())
    body = response.json()
    assert (response.status_code, body["error"]) == (400, "invalid_instance")
    assert body["details"] == "backend_options.model: '/nonexistent/m.gguf' does not exist"
    assert [found["field"] for found in body["errors"]] == ["backend_options.model"]
    assert [found["suggestion"] for found in body["warnings"]] == ["did you mean --ctx-size?"]
    assert list(Instance.objects.values()) == before


def test_strict_saves_options_with_warnings_only(api: Client, gemma_model: Path) -> None:
    options = {"model": str(gemma_model), "ctx_sise": 512}
    response = send(api, "POST", "?strict=true", backend_options=options)
    assert response.status_code == 201
    assert len(response.json()["warnings"]) == 1


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_dry_run_tells_all_and_saves_nothing(api: Client, method: str) -> None:
    if method == "PUT":
        send(api, "POST", backend_options={"threads": 1})
    before = list(Instance.objects.values())
    response = send(api, method, "?dry_run=true", backend_options=faulty())
    assert response.status_code == 200, response.content
    body = response.json()
    assert set(body) == {
        *("command", "command_line", "environment", "working_directory", "options"),
        *("inherited_environment", "errors", "warnings"),
    }
    assert "/nonexistent/m.gguf" in body["command"]
    assert body["options"]["backend_options"]["extra_args"] == {"ctx_sise": "512"}
    assert (len(body["errors"]), len(body["warnings"])) == (1, 1)
    assert list(Instance.objects.values()) == before


def test_dry_run_of_a_name_that_is_taken_is_possible(api: Client) -> None:
    port = send(api, "POST").json()["options"]["backend_options"]["port"]
    body = send(api, "POST", "?dry_run=true").json()
    assert body["options"]["backend_options"]["port"] == port


@pytest.mark.parametrize(
    ("method", "query", "document", "status", "code"),
    [
        ("POST", "?dry_run=true", {"backend_type": "x"}, 400, "invalid_request"),
        ("POST", "?dry_run=true", {"nodes": ["nowhere"]}, 400, "invalid_instance"),
        ("POST", "?dry_run=perhaps", {}, 400, "invalid_parameter"),
        ("POST", "?dry_run=", {}, 400, "invalid_parameter"),
        ("POST", "?strict=2", {}, 400, "invalid_parameter"),
        ("POST", "?dry_run=true&strict=2", {}, 400, "invalid_parameter"),
        ("PUT", "?dry_run=true&strict=2", {}, 400, "invalid_parameter"),
        ("PUT", "?dry_run=true", {}, 404, "invalid_instance"),
        ("PUT", "?strict=true", {}, 404, "invalid_instance"),
    ],
)
def test_dry_run_refuses_like_the_real_request(
    api: Client, method: str, query: str, document: dict[str, Any], status: int, code: str
) -> None:
    response = send(api, method, query, **document)
    assert (response.status_code, response.json()["error"]) == (status, code)
    assert not Instance.objects.exists()


@pytest.mark.parametrize("query", ["?dry_run=false", "?dry_run=0&strict=False"])
def test_false_flags_change_nothing(api: Client, query: str) -> None:
    assert send(api, "POST", query).status_code == 201


@pytest.mark.parametrize("query", ["?dry_run=true", "?strict=true"])
def test_without_a_key_nothing_is_told(client: Client, query: str) -> None:
    assert send(client, "POST", query, backend_options=faulty()).status_code == 401


@pytest.mark.parametrize(
    "path", ["/dev/zero", "/proc/self/mem", "x" * 10_000, "../" * 500, "/" * 4000]
)
def test_hostile_paths_are_answered(api: Client, path: str) -> None:
    options = {"model": path, "mmproj": path, "lora": [path] * 30}
    body = send(api, "POST", "?dry_run=true", backend_options=options).json()
    assert [found["field"] for found in body["errors"]] == [
        "backend_options.model",
        "backend_options.mmproj",
        "backend_options.lora",
    ]


def test_nul_in_a_path_is_refused_as_ever(api: Client) -> None:
    response = send(api, "POST", "?dry_run=true", backend_options={"model": "a\x00b"})
    assert response.status_code == 400
