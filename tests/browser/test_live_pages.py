"""Open pages of a whole llamactl: changes come by themselves, and a banner tells of silence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import TIMEOUT_MS, watch
from tests.faults import victims
from tests.support.paths import FAKE_BACKEND
from tests.support.stack import Stack, running_stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LIST = "/admin/instances/instance/"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own, whose processes are frozen."""
    program = tmp_path_factory.mktemp("program") / "fake-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE_BACKEND}" "$@"\n')
    program.chmod(0o755)
    yield from running_stack(
        tmp_path_factory.mktemp("llamactl"),
        LLAMACTL_LLAMACPP_COMMAND=str(program),
        LLAMACTL_STOP_TIMEOUT="2",
    )


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    """A page of the admin, logged in; a script error or an answer of 500 fails the test."""
    faults: list[str] = []
    context = browser.new_context(base_url=stack.url)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    watch(page, (stack.url, stack.url.replace("http", "ws", 1)), faults)
    page.goto("/admin/")
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", (stack.data_dir / "admin_password").read_text().strip())
    page.click("button[type=submit]")
    expect(page.locator("#live-banner")).to_be_attached()
    yield page
    context.close()
    assert not faults


@contextmanager
def frozen(*processes: psutil.Process) -> Iterator[None]:
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def problem(page: Page, kind: str) -> Any:
    return page.locator(f"#live-banner [data-problem={kind}]")


def badge(page: Page, pk: int) -> Any:
    return page.locator(f'.badge[data-instance="{pk}"]')


def test_rows_come_change_and_go_without_a_reload_or_a_poll(page: Page, stack: Stack) -> None:
    stack.create("first", {"model": "fake"})
    page.goto(LIST)
    polls: list[str] = []
    page.on("request", lambda request: polls.append(request.url))
    page.evaluate("window.stillTheSamePage = true")
    pk = stack.create("second", {"model": "fake"})["id"]
    expect(badge(page, pk)).to_have_text("stopped")
    expect(page.get_by_text("2 instances")).to_be_visible()
    stack.call("POST", "/api/v1/instances/second/start")
    expect(badge(page, pk)).to_have_text("running")
    expect(page.get_by_title("Stop second", exact=True)).to_be_visible()
    stack.call("POST", "/api/v1/instances/second/stop")
    expect(badge(page, pk)).to_have_text("stopped")
    stack.call("DELETE", "/api/v1/instances/second")
    expect(badge(page, pk)).to_have_count(0)
    assert page.evaluate("window.stillTheSamePage")
    assert not [url for url in polls if "statuses/" in url or "/admin/stream" in url]


def test_page_of_an_instance_follows_its_log_its_state_and_its_end(
    page: Page, stack: Stack
) -> None:
    pk = stack.create("third", {"model": "fake"})["id"]
    page.goto(f"{LIST}{pk}/change/")
    stack.call("POST", "/api/v1/instances/third/start")
    expect(badge(page, pk)).to_have_text("running")
    expect(page.locator("[data-part=log] .log")).to_contain_text("Instance third started")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    stack.call("POST", "/api/v1/instances/third/stop")
    expect(badge(page, pk)).to_have_text("stopped")
    stack.call("DELETE", "/api/v1/instances/third")
    expect(problem(page, "gone")).to_be_visible()


def test_each_silence_is_told_and_taken_back(page: Page, stack: Stack) -> None:
    pk = stack.create("fourth", {"model": "fake"})["id"]
    page.goto(LIST)
    with frozen(victims.worker(stack)):
        expect(problem(page, "worker")).to_contain_text("Worker of node main silent for")
        expect(badge(page, pk)).to_have_attribute("data-stale", "")
    expect(problem(page, "worker")).to_have_count(0)
    expect(badge(page, pk)).not_to_have_attribute("data-stale", "")
    with frozen(*victims.webs(stack)):
        expect(problem(page, "web")).to_contain_text("No answer from llamactl for")
        expect(page.locator("html")).to_have_attribute("data-stale", "")
    expect(problem(page, "web")).to_have_count(0)
    with frozen(victims.broker(stack)):
        expect(problem(page, "broker")).to_be_visible()
        assert stack.call("DELETE", "/api/v1/instances/fourth").status_code == 204
        expect(badge(page, pk)).to_have_count(0)
    expect(problem(page, "broker")).to_have_count(0)


def test_database_that_is_away_is_told(page: Page, stack: Stack) -> None:
    page.goto(LIST)
    away = Path(f"{stack.database}.away")
    stack.database.rename(away)
    stack.database.mkdir()
    try:
        expect(problem(page, "database")).to_be_visible()
        expect(page.locator("html")).to_have_attribute("data-stale", "")
    finally:
        stack.database.rmdir()
        away.rename(stack.database)
    expect(problem(page, "database")).to_have_count(0)


def test_logout_in_one_tab_is_told_in_the_other(page: Page) -> None:
    page.goto(LIST)
    other = page.context.new_page()
    other.goto("/admin/")
    other.evaluate("document.querySelector('form[action*=logout]').submit()")
    expect(problem(page, "logged-out")).to_contain_text("You were logged out")
    again = problem(page, "logged-out").get_by_role("link")
    assert str(again.get_attribute("href")).endswith("?next=%2Fadmin%2Finstances%2Finstance%2F")
