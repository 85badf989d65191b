"""The check of an instance's options, as an operator meets it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from instances.models import Instance
from tests.browser.test_admin import LIST

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize("width", [1280, 400])
def test_paste_check_and_save_anyway(open_page: Any, width: int) -> None:
    page = open_page(width=width)
    page.goto(f"{LIST}add/")
    page.get_by_text("Paste a command line").click()
    page.fill("#pasted-command", "llama-server -m '/models/<b>x</b>.gguf' --ctx-sise 4096")
    page.get_by_role("button", name="Fill the form").click()
    findings = page.locator("#paste-findings li")
    expect(findings).to_have_text(
        [
            "backend_options.model: '/models/<b>x</b>.gguf' does not exist",
            "backend_options.extra_args.ctx_sise: --ctx-sise is not in the help of the bundled"
            " llama.cpp server; did you mean --ctx-size?",
        ]
    )
    page.fill("#id_name", "gemma")
    page.locator("[name=_save]").first.click()
    expect(page.locator(".field-model").get_by_text("does not exist")).to_be_visible()
    expect(page.get_by_text("did you mean --ctx-size?")).to_be_visible()
    assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    page.get_by_text("Save anyway").click()
    page.locator("[name=_save]").first.click()
    expect(page.get_by_role("heading", name="Command")).to_be_visible()
    expect(page.locator("#command-line")).to_contain_text("--ctx-sise 4096")
    assert Instance.objects.get().name == "gemma"
