"""A newcomer from the Go llamactl: his data directory, his config, his clients' keys."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support.go_llamactl import NEWER_SCHEMA, copy_database, go_keys
from tests.support.paths import FAKE_BACKEND, ROOT
from tests.support.stack import Stack, running_stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

MANAGEMENT_KEY = "go-management-key-for-tests"
CONFIG = """\
server: {{host: 127.0.0.1, port: 18126}}
data_dir: {data_dir}
backends: {{}}
instances: {{port_range: [18310,18390]}}
auth:
  require_inference_auth: true
  require_management_auth: true
  management_keys: ["{key}"]
"""
"""The Go program's own file, as it is."""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    copy_database(tmp_path, *NEWER_SCHEMA, "UPDATE instances SET status = 'stopped'")
    (tmp_path / "llamactl.yaml").write_text(CONFIG.format(data_dir=tmp_path, key=MANAGEMENT_KEY))
    yield from running_stack(
        tmp_path,
        LLAMACTL_LLAMACPP_COMMAND=str(FAKE_BACKEND),
        # The file's own: a stack of the tests has another one.
        LLAMACTL_INSTANCE_PORT_RANGE="18310-18390",
    )


def manage(stack: Stack, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def get(stack: Stack, path: str, key: str) -> requests.Response:
    return requests.get(
        f"{stack.url}{path}", headers={"Authorization": f"Bearer {key}"}, timeout=60
    )


def models(stack: Stack, key: str) -> list[str]:
    """The ids of the models that a client gets, who tries again where he is told to."""
    answer = get(stack, "/v1/models", key)
    if answer.status_code == 503:
        time.sleep(float(answer.headers["Retry-After"]))
        answer = get(stack, "/v1/models", key)
    assert answer.status_code == 200, answer.text
    return [entry["id"] for entry in answer.json()["data"]]


def test_a_newcomer_is_told_imports_and_keeps_his_clients(stack: Stack) -> None:
    go = stack.data_dir / "llamactl.db"
    before = hashlib.sha256(go.read_bytes()).hexdigest(), go.stat().st_mode
    told = stack.output.read_text()
    assert f"{go} of the Go llamactl holds 5 instances and 3 keys" in told
    keys = go_keys()
    assert get(stack, "/v1/models", keys["all"]).status_code == 401

    assert "5 instances imported, 3 keys imported" in manage(stack, "import_llamactl")
    assert (hashlib.sha256(go.read_bytes()).hexdigest(), go.stat().st_mode) == before

    # The key of a client that never noticed, among guessed ones.
    guessed = [f"llamactl-{number:064x}" for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        answers = pool.map(lambda key: get(stack, "/v1/models", key), guessed)
        assert models(stack, keys["all"]) == ["apple", "chat", "over", "router", "vl.lm"]
        assert {answer.status_code for answer in answers} <= {401, 503}
    assert models(stack, keys["two"]) == ["chat", "vl.lm"]
    assert models(stack, keys["later"]) == models(stack, keys["all"])

    # Its first request starts the instance, on the port that it had there.
    answer = stack.chat("chat", keys["two"])
    assert answer.status_code == 200, answer.text
    chat = get(stack, "/api/v1/instances/chat", MANAGEMENT_KEY).json()
    assert (chat["id"], chat["options"]["backend_options"]["port"]) == (1, 18310)
    assert stack.chat("router", keys["two"]).status_code == 403
    assert get(stack, "/api/v1/instances", keys["all"]).status_code == 401

    # After a restart nothing is said any more, and a recognised key is found at once.
    stack.interrupt()
    stack.start()
    assert "of the Go llamactl" not in stack.output.read_text()
    assert models(stack, keys["two"]) == ["chat", "vl.lm"]
