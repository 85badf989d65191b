"""A hostile page of a backend in a browser whose user is logged in: it reaches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import TIMEOUT_MS
from tests.support.paths import FAKE_BACKEND
from tests.support.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

PAGE = """<!doctype html><title>hostile</title><iframe id="frame"></iframe><script>
const main = "MAIN";
const attempt = async (act) => {
    try { return String(await act()); } catch (e) { return "refused"; }
};
const form = (path, fields) => fetch(main + path, {method: "POST", credentials: "include",
    mode: "no-cors", body: new URLSearchParams(fields)}).then(() => "sent");
(async () => {
    const found = {};
    found.storage = await attempt(() => localStorage.getItem("authorized"));
    found.cookie = await attempt(() => document.cookie);
    found.admin = await attempt(() => fetch(main + "/admin/", {credentials: "include"})
        .then((r) => r.text()));
    found.own_admin = await attempt(() => fetch("/admin/").then((r) => r.status));
    found.own_api = await attempt(() => fetch("/api/v1/instances").then((r) => r.status));
    found.worker = await attempt(() => navigator.serviceWorker.register("worker.js", {scope: "/"})
        .then(() => "registered"));
    await attempt(() => form("/admin/logout/", {}));
    await attempt(() => form("CONTROL", {action: "stop"}));
    found.frame = await attempt(() => new Promise((resolve) => {
        const frame = document.getElementById("frame");
        frame.onload = () => resolve(frame.contentDocument ? "read" : "refused");
        frame.src = main + "/admin/";
    }));
    window.found = found;
})();
</script>"""


@pytest.fixture(scope="module")
def hostile(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A running instance with a page that attacks llamactl."""
    page = tmp_path_factory.mktemp("page") / "page.html"
    page.write_text("placeholder")
    created = stack.create(
        "evil",
        {"model": "fake"},
        command_override=str(FAKE_BACKEND),
        environment={"FAKE_PAGE": str(page)},
    )
    control = f"/admin/instances/instance/{created['id']}/control/"
    page.write_text(PAGE.replace("MAIN", stack.url).replace("CONTROL", control))
    stack.call("POST", "/api/v1/instances/evil/start?wait=30")
    return created


@pytest.fixture
def page(browser: Browser, stack: Stack, hostile: dict[str, Any]) -> Iterator[Page]:
    """A browser that is logged in to the admin, with a key in the storage of the main origin."""
    context = browser.new_context(base_url=stack.url)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.goto("/admin/login/")
    page.get_by_label("Username").fill("admin")
    password = (Path(stack.data_dir) / "admin_password").read_text().strip()
    page.locator("[name=password]").fill(password)
    page.locator("[type=submit]").first.click()
    page.wait_for_url("**/admin/")
    page.evaluate("localStorage.setItem('authorized', 'secret')")
    yield page
    context.close()


def attack(page: Page) -> dict[str, str]:
    page.goto("/llama-cpp/evil/")
    page.wait_for_function("window.found")
    found: dict[str, str] = page.evaluate("window.found")
    return found


def test_a_hostile_page_reaches_neither_keys_nor_the_admin(page: Page, stack: Stack) -> None:
    found = attack(page)
    assert page.url == f"{stack.ui_url}/llama-cpp/evil/"
    assert found == {
        "storage": "null",
        "cookie": "",
        "admin": "refused",
        "own_admin": "404",
        "own_api": "404",
        "worker": "refused",
        "frame": "refused",
    }
    # Neither the forms nor the page's headers should have had an effect.
    page.goto("/admin/")
    expect(page).to_have_title("Overview | llamactl")
    assert page.evaluate("localStorage.getItem('authorized')") == "secret"
    assert stack.instance("evil")["status"] == "running"


def test_on_llamactls_own_port_the_page_is_in_a_sandbox(page: Page, stack: Stack) -> None:
    page.route(
        "**/llama-cpp/evil/",
        lambda route: route.fulfill(response=route.fetch(headers={"Sec-Fetch-Mode": "cors"})),
    )
    found = attack(page)
    assert page.url == f"{stack.url}/llama-cpp/evil/"
    assert found["storage"] == found["cookie"] == found["admin"] == found["worker"] == "refused"
    page.unroute_all()
    page.goto("/admin/")
    expect(page).to_have_title("Overview | llamactl")


@pytest.mark.usefixtures("hostile")
def test_browsers_are_redirected_and_other_clients_get_the_page(stack: Stack) -> None:
    url = f"{stack.url}/llama-cpp/evil/?a=%0D%0Ab"
    opened = requests.get(
        url, headers={"Sec-Fetch-Mode": "navigate"}, allow_redirects=False, timeout=10
    )
    assert (opened.status_code, opened.headers["Location"]) == (
        307,
        f"{stack.ui_url}/llama-cpp/evil/?a=%0D%0Ab",
    )
    plain = requests.get(url, timeout=10)
    assert plain.status_code == 200
    assert plain.headers["Content-Security-Policy"] == "sandbox allow-scripts"
    assert "Set-Cookie" not in plain.headers
    own = requests.get(f"{stack.ui_url}/llama-cpp/evil/", timeout=10)
    assert own.status_code == 200
    assert "Content-Security-Policy" not in own.headers


@pytest.mark.parametrize(
    "path", ["/", "/admin/", "/docs", "/api/v1/instances", "/v1/models", "/static/js/poll.js"]
)
def test_the_port_of_the_pages_answers_nothing_of_llamactls_own(stack: Stack, path: str) -> None:
    key = {"Authorization": f"Bearer {stack.management_key}"}
    answer = requests.get(f"{stack.ui_url}{path}", headers=key, timeout=10, allow_redirects=False)
    assert answer.status_code == 404
    assert "server.port" in answer.text
