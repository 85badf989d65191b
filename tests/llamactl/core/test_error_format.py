from __future__ import annotations

import json
import math

import pytest

from llamactl.core.error_format import PathFamily, document_for, event_for, family_of, render
from llamactl.core.errors import (
    InvalidKey,
    InvalidRequest,
    LlamactlError,
    MethodNotAllowed,
    MissingKey,
    PermissionDenied,
)

MANAGEMENT, BACKEND, OPENAI, ANTHROPIC, OLLAMA = PathFamily


class LaterError(LlamactlError):
    status = 503


class ConflictError(LlamactlError):
    status = 409


PATHS = ("/api/v1/nodes", "/v1/x", "/v1/messages", "/llama-cpp/x/props", "/api/tags", "/nowhere")
NO_RETRY = {b"x-should-retry": b"false"}
WRONG_KEY = {b"www-authenticate": b"Bearer", **NO_RETRY}


@pytest.mark.parametrize(
    ("path", "family"),
    [
        ("/v1/chat/completions", OPENAI),
        ("/v1/messages", ANTHROPIC),
        ("/llama-cpp/x/v1/chat/completions", OPENAI),
        ("/llama-cpp/x/v1/messages/count_tokens", ANTHROPIC),
        ("/llama-cpp/x/v1", BACKEND),
        ("/llama-cpp/x/props", BACKEND),
        ("/llama-cpp/x", BACKEND),
        ("/llama-cpp/x/y/v1/z", BACKEND),
        ("/api/v1/instances/x/proxy/v1/chat/completions", BACKEND),
        ("/api/v1/instances/x/proxy", BACKEND),
        ("/api/v1/instances/x/proxyless", MANAGEMENT),
        ("/api/v1/instances/x", MANAGEMENT),
        ("/admin/", MANAGEMENT),
        # A client with a wrong base URL shows the error as its own API has it.
        ("/v1/v1/messages", ANTHROPIC),
        ("/messages", ANTHROPIC),
        ("/anthropic/v1/messages/count_tokens", ANTHROPIC),
        ("/v1/messages/batches", ANTHROPIC),
        ("/chat/completions", OPENAI),
        ("/infill", OPENAI),
        ("/models/load", OPENAI),
        ("/props", OPENAI),
        ("/propsy", MANAGEMENT),
        ("//v1/models", OPENAI),
        ("/api/v1/chat/completions", OPENAI),
        ("/files", OPENAI),
        ("/api/tags", OLLAMA),
        ("/v1/api/chat", OLLAMA),
        ("/api/v1/llama-cpp/x/models", MANAGEMENT),
        ("/api/x", MANAGEMENT),
    ],
)
def test_family_of_a_path(path: str, family: PathFamily) -> None:
    assert family_of(path) is family


@pytest.mark.parametrize(
    ("path", "family"),
    [
        ("/v1/models", ANTHROPIC),
        ("/v1/files", ANTHROPIC),
        ("/models", ANTHROPIC),
        ("/llama-cpp/x/v1/models", ANTHROPIC),
        ("/llama-cpp/x/props", BACKEND),
        ("/api/v1/nodes", MANAGEMENT),
    ],
)
def test_anthropics_clients_get_its_shape_below_v1(path: str, family: PathFamily) -> None:
    assert family_of(path, is_anthropic=True) is family


def test_error_of_ollamas_paths_is_one_sentence() -> None:
    _, _, body = render("/api/tags", InvalidRequest("wrong", reason="why"))
    assert json.loads(body) == {"error": "wrong"}


def test_error_has_the_shape_that_clients_of_the_family_expect() -> None:
    error = InvalidRequest("wrong", reason="why")
    openai = {"message": "wrong", "type": "invalid_request_error", "param": None}
    assert document_for(OPENAI, error) == {
        "error": {**openai, "code": "invalid_request", "reason": "why"}
    }
    anthropic = {"type": "invalid_request_error", "message": "wrong", "code": "invalid_request"}
    assert document_for(ANTHROPIC, error) == {
        "type": "error",
        "error": {**anthropic, "reason": "why"},
    }
    for family in (MANAGEMENT, BACKEND):
        assert document_for(family, error) == {
            "error": "invalid_request",
            "details": "wrong",
            "reason": "why",
        }


def test_401_of_the_seeds_shape_names_an_authentication_error() -> None:
    for family in (MANAGEMENT, BACKEND):
        for error in (MissingKey(), InvalidKey()):
            assert document_for(family, error) == {
                "error": {"message": error.details, "type": "authentication_error"}
            }


def test_missing_key_names_each_way_to_send_one() -> None:
    for part in ("Missing API key", "Authorization: Bearer KEY", "X-API-Key: KEY", "api_key=KEY"):
        assert part in MissingKey().details


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LaterError("wait", retry_after=5), "overloaded_error"),
        (LaterError("not at all"), "api_error"),
        (LlamactlError("broken"), "api_error"),
    ],
)
def test_overload_of_anthropics_api_is_an_error_that_passes(
    error: LlamactlError, kind: str
) -> None:
    # Its clients retry an overloaded_error for minutes.
    assert json.loads(render("/v1/messages", error)[2])["error"]["type"] == kind


def test_405_says_which_methods_there_are() -> None:
    status, headers, body = render("/x", MethodNotAllowed("PUT", "/x", ("GET", "HEAD")))
    assert (status, dict(headers)[b"allow"]) == (405, b"GET, HEAD")
    assert b"use GET or HEAD" in body


@pytest.mark.parametrize(
    ("path", "error", "expected"),
    [
        ("/v1/x", LaterError("wait", retry_after=0.2), {b"retry-after": b"1"}),
        ("/api/v1/nodes", LaterError("wait", retry_after=4.2), {b"retry-after": b"5"}),
        ("/v1/x", LlamactlError("broken"), {b"x-should-retry": b"false"}),
        ("/llama-cpp/x/props", LlamactlError("broken"), {b"x-should-retry": b"false"}),
        ("/api/v1/nodes", LlamactlError("broken"), {}),
        ("/v1/x", InvalidRequest("wrong"), {}),
        *((path, error, WRONG_KEY) for path in PATHS for error in (MissingKey(), InvalidKey())),
        *((path, PermissionDenied(), NO_RETRY) for path in PATHS),
        ("/v1/x", ConflictError("no"), NO_RETRY),
        ("/v1/x", ConflictError("soon", retry_after=5), {b"retry-after": b"5"}),
        ("/api/v1/nodes", ConflictError("no"), {}),
        ("/v1/x", LaterError("wait", retry_after=600), {b"retry-after": b"59"}),
        ("/v1/messages", LaterError("wait", retry_after=math.inf), {b"retry-after": b"59"}),
        ("/api/v1/nodes", LaterError("wait", retry_after=59.5), {b"retry-after": b"59"}),
        ("/llama-cpp/x/props", LaterError("wait", retry_after=0), {b"retry-after": b"1"}),
        ("/v1/x", LaterError("wait", retry_after=-3), {b"retry-after": b"1"}),
    ],
)
def test_headers_of_an_error(path: str, error: LlamactlError, expected: dict[bytes, bytes]) -> None:
    _, headers, body = render(path, error)
    assert dict(headers) == {
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(body),
        **expected,
    }


@pytest.mark.parametrize("family", PathFamily)
def test_event_is_of_its_own_and_in_the_shape_of_the_stream(family: PathFamily) -> None:
    event = event_for(family, LlamactlError("gone")).decode()
    assert event.startswith("\n\n")
    assert event.endswith("\n\n")
    assert event.startswith("\n\nevent: error\n") is (family is ANTHROPIC)
    error = json.loads(event.partition("data: ")[2])["error"]
    assert error["message"] == "gone"
