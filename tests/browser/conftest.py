"""A real Chromium, logged in to a live llamactl; script errors fail the test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser, Page, Request, Response, expect, sync_playwright

from instances import lifecycle
from llamactl.core import events

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
TIMEOUT_MS = 30_000
"""The bound of every wait. (Playwright's default of 5 s is too short for a loaded machine.)"""
expect.set_options(timeout=TIMEOUT_MS)
CANDIDATES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser(django_db_setup: None) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, CANDIDATES)), None)
    assert program, f"the browser tests need one of {', '.join(CANDIDATES)} on PATH"
    with pytest.MonkeyPatch.context() as environment, sync_playwright() as playwright:
        # Playwright's own event loop runs in this thread, and Django takes it for ours.
        environment.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        chromium = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield chromium
        chromium.close()


def watch(page: Page, own: str | tuple[str, ...], faults: list[str]) -> None:
    """Note script errors, dialogs, foreign requests and 5xx of a page in ``faults``."""

    def on_request(request: Request) -> None:
        addresses = (own,) if isinstance(own, str) else own
        if not request.url.startswith((*addresses, "data:", "blob:")):
            faults.append(f"request to {request.url}")

    def on_response(response: Response) -> None:
        if response.status >= 500:
            faults.append(f"{response.status} {response.url}")

    page.on("request", on_request)
    page.on("response", on_response)
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))


@pytest.fixture
def open_page(browser: Browser, live_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``open_page(width=1280, theme="light")`` → a page of a superuser, on the live server.

    Afterwards it fails the test for a script error, a dialog, an answer of 500 or above, or a
    request to another host: machines with GPUs are often offline.
    """
    monkeypatch.setattr(lifecycle, "wake_node", lambda node: None)
    monkeypatch.setattr(events, "publish", lambda change: None)
    client = Client()
    client.force_login(User.objects.create_superuser("olga"))
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    faults: list[str] = []
    contexts = []

    def open_page(*, width: int = 1280, height: int = 900, theme: Any = "light") -> Page:
        context = browser.new_context(
            base_url=live_server.url,
            viewport={"width": width, "height": height},
            color_scheme=theme,
        )
        contexts.append(context)
        context.add_cookies(
            [{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}]
        )
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        watch(page, live_server.url, faults)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults
