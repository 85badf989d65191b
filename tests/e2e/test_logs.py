"""The log of a real llama.cpp: rotated while it answers, and followed by real clients."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.faults import victims
from tests.support.stack import Stack, running_stack
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from running_stack(
        tmp_path_factory.mktemp("llamactl"),
        LLAMACTL_LOG_ROTATION_MAX_SIZE="1",
        LLAMACTL_STOP_TIMEOUT="2",
        LLAMACTL_DEFAULT_AUTO_RESTART="false",
    )


@pytest.fixture(scope="module")
def key(stack: Stack, model: dict[str, object]) -> str:
    # As chatty as it can be: the log grows by a megabyte within some requests.
    stack.create("demo", {**model, "verbose": True})
    key = stack.new_key()
    assert stack.chat("demo", key, max_tokens=2).status_code == 200
    return key


def log_path(stack: Stack) -> Path:
    return stack.data_dir / "logs" / "demo.log"


@pytest.mark.slow
def test_a_log_is_rotated_while_the_model_answers(stack: Stack, key: str) -> None:
    pid = stack.backends("demo")[0].pid
    rotated = log_path(stack).with_name("demo.log.1")

    def is_rotated() -> bool:
        assert stack.chat("demo", key, max_tokens=64, ignore_eos=True).status_code == 200
        return rotated.exists()

    # A model needs a minute to log a megabyte, so most of it is written here.
    filler = "x" * 99
    write(stack, "\n".join([filler] * 9_500))
    until(is_rotated, "a rotation", seconds=120)
    size = log_path(stack).stat().st_size
    assert stack.chat("demo", key, max_tokens=8).status_code == 200
    assert stack.backends("demo")[0].pid == pid
    until(lambda: log_path(stack).stat().st_size > size, "a log that goes on", seconds=10)
    assert rotated.stat().st_size > 1024 * 1024 // 2
    text = stack.call("GET", "/api/v1/instances/demo/logs?lines=1000").text
    # Of a log's own bytes, splitlines() takes some for the ends of lines.
    assert text.count("\n") == 1000


def test_curl_follows(stack: Stack, key: str) -> None:
    program = shutil.which("curl")
    assert program, "the test needs curl on PATH"
    url = f"{stack.url}/api/v1/instances/demo/logs?follow=true&lines=1"
    header = f"Authorization: Bearer {stack.management_key}"
    arguments = [program, "-sN", "--max-time", "30", "-H", header, url]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        assert curl.stdout.readline() == b"retry: 1000\n"
        write(stack, "=== for curl ===")
        assert any(line == b"data: === for curl ===\n" for line in curl.stdout)
        curl.terminate()


def test_a_browser_follows_and_comes_back_after_a_restart(stack: Stack, key: str) -> None:
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    assert program, "the test needs chromium on PATH"
    marks = [f"=== mark {number} ===" for number in range(3)]
    path = f"/api/v1/instances/demo/logs?follow=true&lines=1&api_key={stack.management_key}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{stack.url}/healthz")
        page.evaluate(
            """path => {
                window.told = [];
                window.source = new EventSource(path);
                window.source.onmessage = (event) => window.told.push(event.data);
            }""",
            path,
        )
        page.wait_for_function("source.readyState === EventSource.OPEN")
        write(stack, marks[0])
        page.wait_for_function("told.includes('=== mark 0 ===')")
        kill_web(stack)
        # It should not wait out the graceful shutdown for a stream that never ends by itself.
        assert "graceful shutdown exceeded" not in stack.output.read_text()
        write(stack, marks[1])
        page.wait_for_function("told.includes('=== mark 1 ===')", timeout=30_000)
        write(stack, marks[2])
        page.wait_for_function("told.includes('=== mark 2 ===')", timeout=30_000)
        told = page.evaluate("told")
        browser.close()
    assert [line for line in told if line in marks] == marks


def write(stack: Stack, line: str) -> None:
    with log_path(stack).open("a") as log:
        log.write(f"{line}\n")


def kill_web(stack: Stack) -> None:
    """End the web process, and wait until another has taken its place."""
    (web,) = victims.webs(stack)
    web.send_signal(signal.SIGTERM)
    web.wait(15)
