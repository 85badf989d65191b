"""The process specifications of a config, and their readiness probes."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamactl.config import AppConfig
from llamactl.server.child import ProcessSpec
from llamactl.server.services import stages
from llamactl.server.sockets import close_all, listen


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


def test_a_hanging_worker_gets_no_sigterm_which_would_stop_its_backends(
    tmp_path: Path, listeners: list[socket.socket]
) -> None:
    (broker,), (worker,), (web,) = stages(config_with(tmp_path), listeners, keep_backends=False)
    assert worker.sends_heartbeat
    assert worker.hang_grace_seconds == 0
    assert web.sends_heartbeat
    assert web.hang_grace_seconds > 0
    assert broker.liveness_probe is not None


def test_the_specifications_can_be_handed_to_the_foreground_process(
    tmp_path: Path, listeners: list[socket.socket]
) -> None:
    made = stages(config_with(tmp_path), listeners, keep_backends=True)
    (broker,), _, (web,) = pickle.loads(pickle.dumps(made))  # noqa: S301 - pickled here
    os.close(broker.prepare())
    assert str(broker.log_path) == str(tmp_path / "broker" / "valkey.log")
    assert not broker.is_ready()
    # It should close the listening sockets, of which there are descriptors alone.
    descriptor = os.dup(listeners[0].fileno())
    listeners.pop().close()
    os.dup2(descriptor, web.pass_fds[0])
    os.close(descriptor)
    web.before_stop()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(web.pass_fds[0])
