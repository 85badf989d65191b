"""The API's documentation in a browser: a newcomer can try every operation, also offline."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from llamactl.openapi.views import document
from tests.browser.conftest import TIMEOUT_MS, watch
from tests.support.paths import FAKE_BACKEND
from tests.support.stack import Stack, running_stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A whole llamactl that runs the fake backend as llama.cpp."""
    program = FAKE_BACKEND
    yield from running_stack(
        tmp_path_factory.mktemp("llamactl"),
        LLAMACTL_LLAMACPP_COMMAND=sys.executable,
        LLAMACTL_LLAMACPP_ARGS=f"-S -E {program}",
        LLAMACTL_STOP_TIMEOUT="2",
    )


@pytest.fixture
def open_docs(browser: Browser, stack: Stack) -> Iterator[Any]:
    """``open_docs(theme="light")`` → the page; a request to another host fails the test."""
    faults: list[str] = []
    contexts = []

    def open_docs(*, theme: Any = "light") -> Page:
        context = browser.new_context(base_url=stack.url, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        watch(page, stack.url, faults)
        page.on(
            "console",
            lambda line: faults.append(line.text) if line.type == "error" else None,
        )
        page.goto("/docs")
        expect(page.locator(".opblock-tag-section")).to_have_count(len(document()["tags"]))
        return page

    yield open_docs
    for context in contexts:
        context.close()
    assert not faults


def authorize(page: Page, key: str) -> None:
    page.get_by_role("button", name="Authorize", exact=True).click()
    page.get_by_label("auth-bearer-value").fill(key)
    page.get_by_role("button", name="Apply credentials").last.click()
    page.get_by_role("button", name="Close", exact=True).last.click()


def operation(page: Page, tag: str, name: str) -> Locator:
    """The operation, opened."""
    block = page.locator(f"[id='operations-{tag}-{name}']")
    block.locator(".opblock-summary-control").click()
    return block


def execute(block: Locator) -> tuple[str, str]:
    """Press Execute; the status that is shown, and the body."""
    block.get_by_role("button", name="Execute", exact=True).click()
    answer = block.locator(".live-responses-table .response")
    expect(answer).to_be_visible()
    status = answer.locator(".response-col_status").inner_text().split()[0]
    body = answer.locator(".response-col_description pre").first
    return status, body.inner_text()


def say(block: Locator, document: object) -> None:
    block.locator("textarea.body-param__text").fill(json.dumps(document))


@pytest.mark.slow
def test_a_new_user_gets_from_the_key_to_a_streamed_answer(open_docs: Any, stack: Stack) -> None:
    page = open_docs()
    authorize(page, stack.management_key)

    block = operation(page, "Instances", "list_instances")
    assert execute(block) == ("200", "[]")

    # It should create an instance with nothing typed at all: the example says it.
    status, body = execute(operation(page, "Instances", "create_instance"))
    assert status == "201"
    assert json.loads(body)["name"] == "gemma"

    block = operation(page, "OpenAI", "list_models")
    status, body = execute(block)
    assert status == "200"
    assert [model["id"] for model in json.loads(body)["data"]] == ["gemma"]

    # It should start the instance and show the stream.
    block = operation(page, "OpenAI", "create_chat_completion")
    say(block, {"model": "gemma", "messages": [], "stream": True, "max_tokens": 3})
    status, body = execute(block)
    assert status == "200"
    assert body.count("data: ") == 4
    assert "[DONE]" in body

    block = operation(page, "Anthropic", "create_message")
    status, _ = execute(block)
    assert status == "200"

    status, body = execute(operation(page, "Keys", "create_key"))
    assert status == "201"
    assert json.loads(body)["key"].startswith("llamactl-")

    # The key is forgotten at a reload: a page of the same origin could read it in the storage.
    page.goto("/docs")
    assert stack.management_key not in page.evaluate("JSON.stringify(localStorage)")
    expect(page.get_by_role("button", name="Authorize", exact=True)).to_have_class(
        re.compile("unlocked")
    )


def test_it_is_dark_where_the_system_is_and_fits_a_narrow_screen(open_docs: Any) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page = open_docs(theme="dark")
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    expect(page.locator("html")).not_to_have_class("dark-mode")
    assert page.evaluate(background) != dark
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
