"""The process specifications of a config, and their readiness probes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from llamactl.config import AppConfig
from llamactl.server.process_group import ProcessSpec
from llamactl.server.services import stages
from llamactl.server.sockets import close_all, listen
from nodes.heartbeat import write_heartbeat
from nodes.models import Node


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    sockets = listen("127.0.0.1", 0)
    yield sockets
    close_all(sockets)


def config_with(data_dir: Path, **sections: dict[str, object]) -> AppConfig:
    return AppConfig.model_validate({"data_dir": data_dir, **sections})


def names(specs: list[list[ProcessSpec]]) -> list[list[str]]:
    return [[spec.name for spec in stage] for stage in specs]


def test_the_broker_comes_first_and_the_web_last(
    tmp_path: Path, listeners: list[socket.socket]
) -> None:
    config = config_with(tmp_path, server={"web_processes": 2})
    found = stages(config, listeners, keep_backends=False)
    assert names(found) == [["broker"], ["worker"], ["web 1", "web 2"]]


def test_a_configured_broker_is_not_started(tmp_path: Path, listeners: list[socket.socket]) -> None:
    config = config_with(tmp_path, redis={"url": "redis://host"})
    found = stages(config, listeners, keep_backends=False)
    assert names(found) == [["worker"], ["web"]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("keep_backends", "said"), [(False, "false"), (True, "true")])
def test_the_worker_alone_is_told_whether_backends_end_with_it(
    tmp_path: Path, listeners: list[socket.socket], *, keep_backends: bool, said: str
) -> None:
    found = stages(config_with(tmp_path), listeners, keep_backends=keep_backends)
    told = {
        spec.name: spec.environment.get("LLAMACTL_KEEP_BACKENDS")
        for stage in found
        for spec in stage
    }
    assert told == {"broker": None, "worker": said, "web": None}


def test_a_worker_gets_the_time_that_stopping_its_backends_may_take(
    tmp_path: Path, listeners: list[socket.socket]
) -> None:
    config = config_with(tmp_path, instances={"drain_timeout": 20, "stop_timeout": 7})
    worker = stages(config, listeners, keep_backends=False)[1][0]
    assert worker.grace_seconds >= 20 + 3 * 7


def test_secrets_are_in_no_command_line(tmp_path: Path, listeners: list[socket.socket]) -> None:
    found = stages(config_with(tmp_path), listeners, keep_backends=False)
    password = (tmp_path / "broker" / "password").read_text().strip()
    assert not any(password in word for stage in found for spec in stage for word in spec.argv)


@pytest.mark.django_db(transaction=True)
def test_a_worker_is_ready_once_its_own_heartbeat_is_there(
    tmp_path: Path, listeners: list[socket.socket]
) -> None:
    worker = stages(config_with(tmp_path), listeners, keep_backends=False)[1][0]
    assert not worker.is_ready(time.time())
    before = time.time()
    write_heartbeat("main")
    # It should not take the heartbeat of the worker before it for its own.
    assert not worker.is_ready(time.time() + 1)
    assert worker.is_ready(before - 1)
    Node.objects.all().delete()


class Health(BaseHTTPRequestHandler):
    """Answers /healthz with 503 at first, and with 200 from then on."""

    answers = [HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.OK]

    def do_GET(self) -> None:
        is_asked = self.path == "/healthz"
        self.send_response(self.answers.pop(0) if is_asked else HTTPStatus.NOT_FOUND)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Tests have no use for an access log."""


def test_the_web_is_ready_once_healthz_says_so(
    tmp_path: Path, listeners: list[socket.socket]
) -> None:
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        config = config_with(tmp_path, server={"port": server.server_port})
        web = stages(config, listeners, keep_backends=False)[2][0]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        assert not web.is_ready(0)
        assert web.is_ready(0)
        server.shutdown()
        thread.join()
    assert not web.is_ready(0)
