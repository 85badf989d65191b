"""The embedded server with a real model."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from instances.backends.embedded import PROGRAM
from tests.support.stack import free_port

COMMAND = [sys.executable, "-I", str(PROGRAM)]
KEY = "key-of-the-instance"


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def ask(
        self, path: str, body: Mapping[str, Any] | None = None, key: str = KEY
    ) -> tuple[int, str]:
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 40
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"not {what}: {self.log.read_text()}"
            time.sleep(0.02)

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: self.ask("/health")[0] == 200, "ready")

    def wait_until_loading(self) -> None:
        self.wait_until(lambda: "loading model" in self.log.read_text(), "loading")

    def stop(self, number: int) -> tuple[int, float]:
        """The exit code, and how many seconds it took."""
        begin = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(30), time.monotonic() - begin


@pytest.fixture(scope="module")
def start(
    gemma_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """Start servers with the real model; kill them in the end."""
    with contextlib.ExitStack() as cleanup:

        def start(*arguments: str, **options: Any) -> Server:
            port = free_port()
            log = tmp_path_factory.mktemp("embedded") / "log"
            command = [*COMMAND, "-m", str(gemma_model), "--port", str(port), "-t", "1", *arguments]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={"PATH": os.environ["PATH"], "LLAMA_API_KEY": KEY},
                    start_new_session=True,
                    **options,
                )
            cleanup.callback(process.wait)
            cleanup.callback(process.kill)
            return Server(process, f"http://127.0.0.1:{port}", log)

        yield start


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    server = start("-c", "2048", "--metrics", "--props", "--alias", "gemma")
    seen: list[int] = []

    def is_ready() -> bool:
        seen.append(server.ask("/health")[0])
        return seen[-1] == 200

    server.wait_until(is_ready, "ready")
    # It should answer while it loads: not yet listening, then loading, then ready.
    assert set(seen) <= {0, 503, 200}
    assert 503 in seen
    return server


MESSAGES = [{"role": "user", "content": "Say hello."}]


@pytest.mark.llama_cpp
def test_the_whole_api_of_llama_server_is_served(server: Server) -> None:
    for path, body, told in (
        ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 4}, '"model":"gemma"'),
        ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 4, "stream": True}, "[DONE]"),
        ("/v1/completions", {"prompt": "The sky", "max_tokens": 4}, '"choices"'),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 4}, '"type":"message"'),
        ("/tokenize", {"content": "hello"}, '"tokens"'),
        ("/apply-template", {"messages": MESSAGES}, "Say hello."),
        ("/v1/models", None, "gemma"),
        ("/metrics", None, "llamacpp:prompt_tokens_total"),
        ("/slots", None, '"n_ctx":2048'),
        # llama-server's default of four slots with one context
        ("/props", None, '"total_slots":4'),
    ):
        status, text = server.ask(path, body)
        assert status == 200, (path, text)
        assert told in text, (path, text)


@pytest.mark.llama_cpp
def test_the_key_is_in_no_command_line_and_no_log(server: Server) -> None:
    assert server.ask("/v1/models", key="wrong")[0] == 401
    assert server.ask("/props")[0] == 200
    processes = [psutil.Process(server.process.pid)]
    processes += processes[0].children()
    assert len(processes) == 2
    assert all(KEY not in " ".join(process.cmdline()) for process in processes)
    assert KEY not in server.log.read_text()


@pytest.mark.llama_cpp
def test_stop_during_a_stream(start: Callable[..., Server]) -> None:
    server = start("-c", "2048")
    server.wait_until_ready()
    body = {"prompt": "a", "max_tokens": 2000, "stream": True, "ignore_eos": True}
    request = urllib.request.Request(
        f"{server.url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.read(20)
        code, seconds = server.stop(signal.SIGINT)
    assert code == 0
    assert seconds < 10
    assert server.log.read_text().endswith("stopped by SIGINT\n")


@pytest.mark.llama_cpp
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_while_the_model_loads(start: Callable[..., Server], number: int) -> None:
    # It should also be so where SIGINT came ignored, as in a shell's background job.
    server = start(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    server.wait_until_loading()
    code, seconds = server.stop(number)
    assert code == 0
    assert seconds < 10
    assert server.ask("/health")[0] == 0


@pytest.mark.llama_cpp
def test_server_does_not_outlive_a_killed_outer_process(start: Callable[..., Server]) -> None:
    server = start()
    server.wait_until_loading()
    (inner,) = psutil.Process(server.process.pid).children()
    server.stop(signal.SIGKILL)
    deadline = time.monotonic() + 30
    with contextlib.suppress(psutil.NoSuchProcess):
        while inner.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.llama_cpp
def test_a_killed_server_is_an_error(start: Callable[..., Server]) -> None:
    server = start()
    server.wait_until_loading()
    psutil.Process(server.process.pid).children()[0].kill()
    assert server.process.wait(30) == 137
    assert "killed by SIGKILL" in server.log.read_text().splitlines()[-1]


@pytest.mark.llama_cpp
def test_missing_memory_is_an_error(start: Callable[..., Server]) -> None:
    limit = 1500 * 2**20
    server = start(
        *("-c", "4000000", "-np", "1", "--fit", "off"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert server.process.wait(30) in (1, 134)
    assert server.log.read_text().splitlines()[-1].startswith("error: out of memory")


@pytest.mark.llama_cpp
def test_embeddings(start: Callable[..., Server]) -> None:
    server = start("--embeddings", "--pooling", "mean", "-c", "512")
    server.wait_until_ready()
    status, text = server.ask("/v1/embeddings", {"input": "hello"})
    assert status == 200
    assert len(json.loads(text)["data"][0]["embedding"]) > 100
    assert server.stop(signal.SIGTERM)[0] == 0
