"""The admin in a browser: it keeps itself up to date, works on a phone, and stays offline."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, Request, expect

from instances import lifecycle
from instances.logs.files import log_path
from instances.models import Instance
from instances.states import DesiredState, Status
from keys.models import InferenceKey
from llamactl.config import current

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LIST = "/admin/instances/instance/"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e"


def create(name: str = "gemma") -> Instance:
    options = {"model": f"/models/a-model-with-quite-a-long-name-{name}-Q4_K_M.gguf"}
    document = {"backend_type": "llama_cpp", "backend_options": options}
    return lifecycle.create(name, document, cause="test")


def observe(instance: Instance, **columns: object) -> None:
    """Write observed state as a supervisor would."""
    Instance.objects.filter(pk=instance.pk).update(**columns)


def fail(instance: Instance) -> None:
    lifecycle.request_start(instance.name, cause="test")
    observe(
        instance,
        status=Status.FAILED,
        observed_generation=1,
        failure={"reason": "crashed", "details": HOSTILE, "exit_code": 1, "log_tail": HOSTILE},
    )


def polls_of(page: Page) -> list[str]:
    """The addresses that statuses.js asks from now on, as they come."""
    polls: list[str] = []

    def note(request: Request) -> None:
        if f"{LIST}statuses/" in request.url.partition("?")[0]:
            polls.append(request.url)

    page.on("request", note)
    return polls


def stop_clock(page: Page) -> None:
    """From the next page on, time passes for its scripts only when they are told so."""
    page.clock.install(time=0)
    page.clock.pause_at(1)


def badge(page: Page, instance: Instance) -> Any:
    return page.locator(f'.badge[data-instance="{instance.pk}"]')


def test_badge_and_buttons_follow_the_status_without_a_reload(open_page: Any) -> None:
    instance = create()
    page = open_page()
    page.goto(LIST)
    expect(badge(page, instance)).to_have_text("stopped")
    page.get_by_title("Start gemma", exact=True).click()
    expect(badge(page, instance)).to_have_text("starting")
    expect(page.get_by_text("Start requested for 1: gemma.")).to_be_visible()
    page.evaluate("window.stillTheSamePage = true")
    observe(instance, status=Status.RUNNING, observed_generation=1)
    expect(badge(page, instance)).to_have_text("running")
    expect(page.get_by_title("Stop gemma", exact=True)).to_be_visible()
    expect(page.get_by_title("Start gemma", exact=True)).to_be_hidden()
    assert page.evaluate("window.stillTheSamePage")


def test_tab_that_nobody_sees_does_not_poll(open_page: Any) -> None:
    create()
    page = open_page()
    stop_clock(page)
    page.add_init_script(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true})"
    )
    polls = polls_of(page)
    page.goto(LIST)
    page.clock.run_for(20_000)
    assert polls == []
    with page.expect_response("**/statuses/*"):
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: false});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
    assert len(polls) == 1


def test_polling_ends_with_the_session(open_page: Any) -> None:
    create()
    page = open_page()
    stop_clock(page)
    page.goto(LIST)
    page.context.clear_cookies()
    polls = polls_of(page)
    with page.expect_response("**/statuses/*"):
        page.clock.run_for(2_000)
    page.clock.run_for(20_000)
    assert len(polls) == 1


def test_detail_page_shows_a_failure_as_it_happens_and_hostile_text_as_text(
    open_page: Any,
) -> None:
    instance = create()
    path = log_path(current(), "gemma")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HOSTILE)
    page = open_page()
    page.goto(f"{LIST}{instance.pk}/change/")
    expect(page.locator(".log").filter(has_text="<script>alert(1)</script>")).to_be_visible()
    page.get_by_role("button", name="Start").click()
    expect(badge(page, instance)).to_have_text("starting")
    fail(instance)
    expect(page.get_by_text("Failure: crashed")).to_be_visible()
    expect(page.locator(".note-failure .log")).to_contain_text("\\u202e")
    page.get_by_role("button", name="Start").click()
    expect(badge(page, instance)).to_have_text("starting")


def test_pasted_command_becomes_an_instance(open_page: Any) -> None:
    page = open_page()
    page.goto(f"{LIST}add/")
    expect(page.locator("#id_max_model_len")).to_be_hidden()
    page.locator("summary", has_text="Paste a command line").click()
    page.fill("#pasted-command", "llama-server -m /models/tiny.gguf -c 'many'")
    page.click("#fill-from-command")
    expect(page.locator("#paste-outcome")).to_contain_text("many")
    page.fill("#pasted-command", "A=1 llama-server -m /models/tiny.gguf -c 4096 --mlock")
    page.click("#fill-from-command")
    expect(page.locator("#id_ctx_size")).to_have_value("4096")
    expect(page.locator("#id_environment")).to_have_value("A=1")
    page.click("button[name=_save]")
    page.get_by_text("Save anyway").click()  # there is no such model here
    page.click("button[name=_save]")
    expect(page.get_by_text("Created tiny.")).to_be_visible()
    instance = Instance.objects.get()
    assert instance.desired_state == DesiredState.RUNNING
    assert instance.options["backend_options"] == {
        "model": "/models/tiny.gguf",
        "ctx_size": 4096,
        "mlock": True,
    }


def test_form_shows_the_fields_that_the_backend_has(open_page: Any) -> None:
    page = open_page()
    page.goto(f"{LIST}add/")
    page.select_option("#id_backend_type", "vllm")
    expect(page.locator("#id_max_model_len")).to_be_visible()
    expect(page.locator("#id_gpu_layers")).to_be_hidden()


def test_page_of_a_new_key_is_left_by_a_reload_and_makes_no_second_key(open_page: Any) -> None:
    page = open_page()
    stop_clock(page)  # the button says "Copied" for two seconds
    page.goto("/admin/keys/inferencekey/add/")
    page.fill("#id_name", "<script>alert(1)</script>")
    page.click("button[name=_save]")
    expect(page.locator("#plain-key")).to_contain_text("llamactl-")
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    plain = page.locator("#plain-key").inner_text()
    page.reload()
    expect(page.get_by_role("link", name="<script>alert(1)</script>")).to_be_visible()
    assert plain not in page.content()
    assert InferenceKey.objects.count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_readable_on_a_phone_in_both_themes(open_page: Any, theme: str) -> None:
    """It should be as wide as the screen, and as dark as asked for."""
    instance = create("an-instance-with-a-name-that-is-as-long-as-may-be-")
    fail(instance)
    page = open_page(width=390, height=844, theme=theme)
    for path in (
        "/admin/",
        LIST,
        f"{LIST}{instance.pk}/change/",
        f"{LIST}add/",
        "/admin/keys/inferencekey/",
        "/admin/keys/inferencekey/add/",
        "/admin/nodes/node/",
        "/admin/auth/user/add/",
    ):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        main = "getComputedStyle(document.getElementById('main')).backgroundColor"
        is_light = page.evaluate(main) == "rgb(255, 255, 255)"
        assert is_light is (theme == "light"), path
