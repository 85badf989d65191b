"""``/llama-cpp/{name}/…`` in front of the real llama.cpp: its endpoints, and its web UI."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.conftest import ARGUMENTS, CANDIDATES, watch
from tests.support.stack import Stack
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def key(stack: Stack, model: dict[str, object]) -> str:
    stack.create("demo", {**model, "metrics": True, "props": True, "n_predict": 32})
    stack.create("embedder", {**model, "embeddings": True, "pooling": "mean"})
    stack.create("ranker", {**model, "reranking": True})
    return stack.new_key()


def ask(
    stack: Stack, key: str | None, method: str, path: str, document: object = None, **more: Any
) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return requests.request(
        method,
        f"{stack.url}/llama-cpp/{path}",
        json=document,
        headers=headers | more.pop("headers", {}),
        timeout=90,
        **more,
    )


def test_stopped_instance_has_no_web_ui_and_looking_at_it_starts_nothing(
    stack: Stack, key: str
) -> None:
    stack.call("POST", "/api/v1/instances/demo/stop")
    stack.until_status("demo", "stopped")
    for path in ("demo/", "demo/favicon.svg"):
        answer = ask(stack, None, "GET", path)
        assert (answer.status_code, answer.json()["error"]) == (503, "instance_not_running")
    for path in ("demo/metrics", "demo/health"):
        assert ask(stack, key, "GET", path).status_code == 503
    assert stack.instance("demo")["status"] == "stopped"


@pytest.fixture
def running(stack: Stack, key: str) -> None:
    ask(stack, key, "POST", "demo/completion", {"prompt": "a", "n_predict": 1})


def test_completion_starts_the_instance_and_is_answered(stack: Stack, key: str) -> None:
    answer = ask(
        stack, key, "POST", "demo/completion", {"prompt": "Once upon a time", "n_predict": 8}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["content"]
    assert stack.instance("demo")["status"] == "running"


MESSAGES = [{"role": "user", "content": "Say hello."}]
CHAT = {"messages": MESSAGES, "max_tokens": 4}


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("method", "path", "document", "part"),
    [
        ("POST", "apply-template", {"messages": MESSAGES}, "prompt"),
        ("POST", "tokenize", {"content": "hello"}, "tokens"),
        ("POST", "detokenize", {"tokens": [1, 2]}, "content"),
        ("POST", "completions", {"prompt": "a", "max_tokens": 2}, "content"),
        ("POST", "chat/completions", CHAT, "choices"),
        ("POST", "v1/chat/completions", CHAT, "choices"),
        ("POST", "v1/chat/completions", {**CHAT, "model": "whatever"}, "choices"),
        ("POST", "v1/completions", {"prompt": "a", "max_tokens": 2}, "choices"),
        ("POST", "v1/messages", {**CHAT, "model": "demo"}, "content"),
        ("POST", "v1/messages/count_tokens", CHAT, "input_tokens"),
        ("POST", "v1/responses", {"input": "Hi", "max_output_tokens": 4}, "output"),
        ("GET", "props", None, "default_generation_settings"),
        ("POST", "props", {}, "success"),
        ("GET", "v1/models", None, "data"),
        ("GET", "models", None, "data"),
        ("GET", "health", None, "status"),
        ("GET", "slots", None, "is_processing"),
        ("GET", "metrics", None, "llamacpp:prompt_tokens_total"),
        ("POST", "metrics", None, "llamacpp:prompt_tokens_total"),
        ("GET", "lora-adapters", None, "[]"),
        ("POST", "v1/streams/lookup", {"conversation_ids": ["x"]}, "["),
    ],
)
def test_endpoint_answers_with_a_key_and_not_without(
    stack: Stack, key: str, method: str, path: str, document: object, part: str
) -> None:
    assert ask(stack, None, method, f"demo/{path}", document).status_code == 401
    answer = ask(stack, key, method, f"demo/{path}", document)
    assert answer.status_code == 200, answer.text
    assert part in answer.text


@pytest.mark.parametrize(
    ("path", "document", "part"),
    [
        ("embedder/embedding", {"content": "one"}, "embedding"),
        ("embedder/embeddings", {"input": "one"}, "embedding"),
        ("embedder/v1/embeddings", {"input": "one"}, "embedding"),
        ("ranker/rerank", {"query": "a", "documents": ["b", "c"]}, "relevance_score"),
        ("ranker/reranking", {"query": "a", "documents": ["b", "c"]}, "relevance_score"),
    ],
)
def test_endpoint_of_a_special_model_starts_it_and_answers(
    stack: Stack, key: str, path: str, document: object, part: str
) -> None:
    answer = ask(stack, key, "POST", path, document)
    assert answer.status_code == 200, answer.text
    assert part in answer.text


@pytest.mark.parametrize("path", ["infill", "slots/0?action=erase"])
def test_llama_servers_own_refusal_reaches_the_client(stack: Stack, key: str, path: str) -> None:
    # This model knows no infilling, and the instance has no slot_save_path.
    answer = ask(stack, key, "POST", f"demo/{path}", {"input_prefix": "a", "input_suffix": "b"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (501, "not_supported_error")


@pytest.mark.parametrize("path", ["tools", "cors-proxy?url=http://127.0.0.1/", "models/unload"])
def test_what_acts_on_the_node_is_not_reached_with_an_inference_key(
    stack: Stack, key: str, path: str
) -> None:
    for method in ("GET", "POST"):
        assert ask(stack, key, method, f"demo/{path}").status_code == 404
        assert ask(stack, None, method, f"demo/{path}").status_code == 401


@pytest.mark.usefixtures("running")
def test_page_comes_unpacked_to_a_client_without_gzip(stack: Stack, key: str) -> None:
    packed = ask(stack, None, "GET", "demo/", headers={"Accept-Encoding": "gzip"})
    plain = ask(stack, None, "GET", "demo/", headers={"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.text == plain.text
    assert "<!doctype html>" in plain.text
    # curl says nothing at all about encodings.
    bare = ask(stack, None, "GET", "demo/favicon.svg", headers={"Accept-Encoding": None})
    assert bare.content.lstrip().startswith(b"<")


@pytest.fixture
def page(stack: Stack) -> Iterator[Page]:
    program = next(filter(None, map(shutil.which, CANDIDATES)), None)
    assert program, f"this test needs one of {', '.join(CANDIDATES)} on PATH"
    faults: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        page = chromium.new_page(viewport={"width": 1200, "height": 850})
        page.set_default_timeout(30_000)
        watch(page, (stack.url, stack.ui_url), faults)
        yield page
        chromium.close()
    assert not faults


@pytest.mark.usefixtures("running")
def test_web_ui_asks_for_a_key_chats_and_keeps_it(stack: Stack, key: str, page: Page) -> None:
    # Without the slash; the page's own files are found nevertheless.
    page.goto(f"{stack.url}/llama-cpp/demo")
    page.get_by_role("button", name="Enter API Key").click()
    page.get_by_placeholder("API key").fill(key)
    page.get_by_role("button", name="Save & Retry").click()
    message = page.get_by_placeholder("Type a message")
    message.fill("Say hello.")
    with page.expect_response("**/llama-cpp/demo/v1/chat/completions") as answer:
        message.press("Enter")
    assert answer.value.status == 200
    reply = page.get_by_label("Assistant message with actions")
    # The text of so small a model is arbitrary; the page counts the received tokens.
    expect(reply).to_contain_text(re.compile(r"[1-9]\d* tokens"), timeout=30_000)
    assert page.url.startswith(f"{stack.ui_url}/llama-cpp/demo/")
    # The page's settings are in the storage of its origin.
    page.goto(f"{stack.url}/llama-cpp/demo/")
    page.get_by_placeholder("Type a message").fill("Say hello again.")
    with page.expect_response("**/llama-cpp/demo/v1/chat/completions") as answer:
        page.get_by_placeholder("Type a message").press("Enter")
    assert answer.value.status == 200


def at_root(stack: Stack, key: str | None, path: str, document: object = None) -> requests.Response:
    """A request to llamactl's root, as clients of llama.cpp's router send it."""
    return requests.request(
        "GET" if document is None else "POST",
        stack.url + path,
        json=document,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=90,
    )


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("path", "document", "part"),
    [
        ("/completion", {"prompt": "a", "n_predict": 2}, "content"),
        ("/chat/completions", CHAT, "choices"),
        ("/apply-template", {"messages": MESSAGES}, "prompt"),
        ("/tokenize", {"content": "hello"}, "tokens"),
        ("/detokenize", {"tokens": [1, 2]}, "content"),
        ("/embedding", {"model": "embedder", "content": "a"}, "embedding"),
        ("/rerank", {"model": "ranker", "query": "a", "documents": ["b"]}, "relevance_score"),
        ("/reranking", {"model": "ranker", "query": "a", "documents": ["b"]}, "relevance_score"),
    ],
)
def test_call_at_the_root_is_answered_by_the_model_of_its_body(
    stack: Stack, key: str, path: str, document: dict[str, object], part: str
) -> None:
    document = {"model": "demo", **document}
    assert at_root(stack, None, path, document).status_code == 401
    answer = at_root(stack, key, path, document)
    assert answer.status_code == 200, answer.text
    assert part in answer.text


@pytest.mark.usefixtures("running")
def test_models_tell_the_context_of_a_request_also_after_the_stop(stack: Stack, key: str) -> None:
    def entry() -> Any:
        listed = at_root(stack, key, "/models").json()["data"]
        return next(each for each in listed if each["id"] == "demo")

    props = at_root(stack, key, "/props?model=demo").json()
    length = props["default_generation_settings"]["n_ctx"]
    # The facts are stored in a moment after the start.
    until(lambda: entry().get("context_length") == length, "the facts of the model")
    loaded = entry()
    assert loaded["status"] == {"value": "loaded"}
    assert loaded["meta"]["n_ctx"] == length
    assert loaded["meta"]["n_params"] > 10**8
    unloaded = at_root(stack, stack.management_key, "/models/unload", {"model": "demo"})
    assert unloaded.json() == {"success": True}
    stack.until_status("demo", "stopped")
    assert entry() == {**loaded, "status": {"value": "unloaded"}}
    refused = at_root(stack, key, "/props?model=demo")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_not_loaded")
    refused = at_root(stack, key, "/completion?autoload=false", {"model": "demo", "prompt": "a"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_not_loaded")
    assert at_root(stack, key, "/models/unload", {"model": "demo"}).status_code == 403
    loading = at_root(stack, key, "/models/load", {"model": "demo"})
    assert loading.json() == {"success": True}
    stack.until_status("demo", "running")
    assert entry() == loaded
