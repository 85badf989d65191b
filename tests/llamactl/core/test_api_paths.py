"""Paths as clients with a wrong base URL send them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamactl.config.app_config import AppConfig
from llamactl.core import links
from llamactl.core.api_paths import OPERATIONS, is_misdirected, is_ollama, is_resource, right_path
from llamactl.core.unknown_paths import refusal_of

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/chat/completions", CHAT),
        ("/v1/v1/chat/completions", CHAT),
        ("/v1/v1/v1/chat/completions", CHAT),
        ("//v1/chat/completions", CHAT),
        ("/v1//chat/completions", CHAT),
        ("/v1/chat/completions/", CHAT),
        ("/v1/chat//completions//", CHAT),
        ("/v1/chat/completions%20", CHAT),
        ("/V1/Chat/Completions", CHAT),
        ("/v1chat/completions", CHAT),
        ("/v1/chat/chat/completions", CHAT),
        ("/v1/chat/completions/chat/completions", CHAT),
        ("/openai/v1/chat/completions", CHAT),
        ("/v1/openai/chat/completions", CHAT),
        ("/openai/deployments/demo/chat/completions", CHAT),
        ("/api/v1/chat/completions", CHAT),
        ("/api/chat/completions", CHAT),
        ("/v2/chat/completions", CHAT),
        ("/v1/v1/messages", "/v1/messages"),
        ("/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/anthropic/v1/messages", "/v1/messages"),
        ("/v1//embeddings", "/v1/embeddings"),
        ("/v1/v1/audio/transcriptions", "/v1/audio/transcriptions"),
        ("/models", "/v1/models"),
        ("/api/v1/models", "/v1/models"),
        ("/v1/chat/completions/models", "/v1/models"),
        ("/v1/v1/models/Demo", "/v1/models/Demo"),
        ("/models/demo/org/m", "/v1/models/demo/org/m"),
        ("/v1/v1/a-newer/path", "/v1/a-newer/path"),
        ("/v1/a-newer/path/", "/v1/a-newer/path"),
    ],
)
def test_misspelt_path_has_a_right_one(path: str, right: str) -> None:
    assert right_path(path) == right


@pytest.mark.parametrize(
    "path",
    [
        *(f"/v1/{operation}" for operation in sorted(OPERATIONS)),
        *("/v1/models/demo", "/v1/chat/completions/render", "/v1/classify/embeddings"),
        *("/", "/v1", "/x", "/v1/../models", "/v1/%2e%2e/models", "/v1/a%20b/"),
        *("/admin/models", "/api/v1/instances/models", "/api/v1/llama-cpp/demo/models"),
        *("/llama-cpp/demo/models", "/static/models", "/v1" + "/a" * 5000),
    ],
)
def test_other_paths_have_none(path: str) -> None:
    assert right_path(path) is None


@given(st.lists(st.sampled_from(["v1", "", "chat", "completions", "models", "a", "..", "%2f"])))
def test_right_path_is_right_itself(parts: list[str]) -> None:
    right = right_path("/" + "/".join(parts))
    if right is not None:
        assert right_path(right) is None
        assert right.startswith("/v1/")


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/files", "/v1/files/file-1/content", "/v1/uploads", "/v1/batches/b1/cancel"),
        *("/v1/assistants", "/v1/threads/t1/runs", "/v1/vector_stores", "/v1/fine_tuning/jobs"),
        *("/v1/responses/r1/cancel", "/v1/responses/r1/input_items", "/v1/conversations/c1"),
        *("/v1/moderations", "/v1/realtime/sessions", "/v1/videos", "/v1/containers", "/v1/evals"),
        *("/v1/messages/batches", "/v1/messages/batches/b1/results", "/v1/organizations/me"),
        *("/v1/engines/demo/embed", "/files", "/api/v1/files", "/v1/v1/files", "/openai/files"),
    ],
)
def test_apis_without_models_are_known(path: str) -> None:
    assert is_resource(path)


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/chat/completions", "/v1/responses", "/v1/responses/compact", "/v1/messages"),
        *("/v1/models/files", "/api/v1/instances/files", "/v1/audio/files", "/", "/v1"),
    ],
)
def test_other_apis_are_not_taken_for_them(path: str) -> None:
    assert not is_resource(path)


@pytest.mark.parametrize(
    "path",
    [
        *("/api/tags", "/api/chat", "/api/generate", "/api/show", "/api/ps", "/api/version"),
        *("/api/embed", "/api/embeddings", "/api/pull", "/api/blobs/sha256:00", "/api/tags/"),
        *("//api/chat", "/v1/api/chat", "/ollama/api/tags", "/api/v1/api/tags", "/API/Tags"),
    ],
)
def test_ollamas_paths_are_known(path: str) -> None:
    assert is_ollama(path)


@pytest.mark.parametrize(
    "path", ["/api/chat/completions", "/api", "/api/v1/version", "/api/v1/nodes", "/tags", "/api/x"]
)
def test_other_paths_below_api_are_not_ollamas(path: str) -> None:
    assert not is_ollama(path)


@pytest.mark.parametrize("path", ["/v1/", "/v1/api/tags", "/v1/files", "/v1/v1/models"])
def test_misdirected_path_goes_to_no_backend(path: str) -> None:
    assert is_misdirected(path)


def details_of(path: str) -> str:
    refusal = refusal_of(path, "http://me:8080")
    assert refusal is not None
    assert (refusal.status, refusal.code) == (404, "not_found")
    return refusal.details


@pytest.mark.usefixtures("config")
def test_refusal_names_the_path_and_the_base_url() -> None:
    assert "use /v1/chat/completions " in details_of("/v1/v1/chat/completions")
    assert "clients is /v1)" in details_of("/v1/v1/chat/completions")
    assert "ends without /v1" in details_of("/v1/v1/messages")
    single = details_of("/llama-cpp/demo/v1/v1/chat/completions")
    assert "use /llama-cpp/demo/v1/chat/completions " in single
    assert "clients is /llama-cpp/demo/v1)" in single
    assert "GET /v1/models lists" in details_of("/v1")
    assert details_of("/v1/files").startswith("llamactl has no /v1/files")
    assert "http://me:8080/v1 " in details_of("/api/tags")
    assert refusal_of("/nowhere", "") is None


def test_refusal_has_the_prefix_of_a_reverse_proxy(
    config: AppConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = config.server.model_copy(update={"public_url": "https://llm.example/llm"})
    behind_proxy = config.model_copy(update={"server": server})
    monkeypatch.setattr(links, "current", lambda: behind_proxy)
    assert "use /llm/v1/chat/completions " in details_of("/chat/completions")
    assert "/llm/docs" in details_of("/files")
