from __future__ import annotations

import pytest

from llamactl.core.errors import InvalidRequest
from proxy.error_format import document_for, render
from proxy.errors import MethodNotPossible


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/chat/completions", "openai"),
        ("/v1/messages", "anthropic"),
        ("/llama-cpp/x/v1/chat/completions", "openai"),
        ("/llama-cpp/x/v1/messages/count_tokens", "anthropic"),
        ("/llama-cpp/x/v1", "seed"),
        ("/llama-cpp/x/props", "seed"),
        ("/llama-cpp/x", "seed"),
        ("/llama-cpp/x/y/v1/z", "seed"),
        ("/api/v1/instances/x/proxy/v1/chat/completions", "seed"),
        ("/admin/", "seed"),
    ],
)
def test_error_has_the_shape_that_clients_of_the_path_expect(path: str, shape: str) -> None:
    document = document_for(path, InvalidRequest("wrong"))
    if shape == "seed":
        assert document == {"error": "invalid_request", "details": "wrong"}
        return
    error = document["error"]
    assert isinstance(error, dict)
    assert (error["message"], document.get("type")) == (
        "wrong",
        "error" if shape == "anthropic" else None,
    )


def test_405_says_which_methods_there_are() -> None:
    status, headers, body = render("/x", MethodNotPossible("PUT", "/x", ("GET", "HEAD")))
    assert (status, dict(headers)[b"allow"]) == (405, b"GET, HEAD")
    assert b"use GET or HEAD" in body
