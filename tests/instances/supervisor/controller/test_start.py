"""From a requested start to a ready instance, or to its failure."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import DataError

from instances import lifecycle
from instances.models import Instance
from instances.states import Status
from instances.supervisor import supervisor
from instances.supervisor.controller.health_check import ProbeAnswer
from instances.supervisor.state import rows
from llamactl.config import AppConfig, current
from tests.instances.supervisor.conftest import NodeUnderTest, children, is_alive
from tests.support.until import until


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0")
    return dict(pair.split("=", 1) for pair in pairs)


def test_a_start_leads_to_running(supervised: NodeUnderTest) -> None:
    instance = supervised.running()
    assert supervised.history() == ["starting", "running"]
    assert instance.pid in children()
    assert instance.pid_started_ticks
    assert instance.started_at is not None
    assert instance.ready_at is not None
    assert instance.ready_at - instance.started_at < timedelta(seconds=20)


def test_running_means_ready_to_answer(supervised: NodeUnderTest) -> None:
    supervised.create(FAKE_START_SECONDS="0.4")
    supervised.ask_start()
    instance = supervised.reaches(Status.STARTING)
    started = until(lambda: supervised.see().started_at)
    instance = supervised.reaches(Status.RUNNING)
    assert instance.ready_at is not None
    assert instance.ready_at - started >= timedelta(seconds=0.35)


def test_a_start_without_a_wake_up_is_found_on_the_tick(
    node: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RESYNC_SECONDS", 600)
    node.create()
    node.start()
    until(lambda: node.see().node.heartbeat_at)
    monkeypatch.setattr(lifecycle, "wake_node", lambda node: None)
    node.ask_start()
    node.reaches(Status.RUNNING)


def test_a_change_that_no_revision_counts_is_found_by_the_resync(
    node: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RESYNC_SECONDS", 1.5)
    node.create()
    node.start()
    until(lambda: node.see().node.heartbeat_at)
    Instance.objects.update(desired_state="running", generation=1)
    node.reaches(Status.RUNNING)


def test_many_wake_ups_start_one_process(supervised: NodeUnderTest) -> None:
    supervised.create()
    supervised.ask_start()
    for _ in range(50):
        supervised.wake()
    supervised.reaches(Status.RUNNING)
    assert len(children()) == 1
    assert supervised.history() == ["starting", "running"]


def test_the_process_gets_nothing_of_the_workers_secrets(
    node: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_SECRET", "s3cret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    node.start()
    instance = node.running(environment={"MINE": "yes"})
    assert instance.pid is not None
    environ = environment_of(instance.pid)
    assert environ["MINE"] == "yes"
    assert environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert environ["LLAMA_API_KEY"] == f"key-{instance.pk}"
    assert environ["LLAMACTL_INSTANCE"] == f"{instance.pk}:one"
    ours = {name for name in environ if name.startswith("LLAMACTL_")}
    assert ours == {"LLAMACTL_NODE", "LLAMACTL_INSTANCE", "LLAMACTL_LAUNCH"}
    assert not {"DJANGO_SECRET", "DJANGO_SETTINGS_MODULE", "TZ"} & environ.keys()


def test_the_key_is_not_on_the_command_line(supervised: NodeUnderTest) -> None:
    instance = supervised.running()
    command = Path(f"/proc/{instance.pid}/cmdline").read_text()
    assert f"key-{instance.pk}" not in command


def test_the_process_lives_in_the_data_directory(supervised: NodeUnderTest) -> None:
    instance = supervised.running()
    assert Path(f"/proc/{instance.pid}/cwd").readlink() == current().data_dir.resolve()
    assert os.getsid(instance.pid or 0) == instance.pid


def test_the_log_is_marked_and_private(supervised: NodeUnderTest) -> None:
    supervised.running(FAKE_LOG_LINES="2")
    supervised.ask_stop()
    supervised.reaches(Status.STOPPED)
    lines = supervised.log().splitlines()
    assert lines[-5].startswith("=== Instance one started at 20")
    assert lines[-4:-2] == ["line 0", "line 1"]
    assert lines[-2].startswith("main: server is listening")
    assert lines[-1].startswith("=== Instance one stopped at 20")
    mode = (current().instances.logs_dir / "one.log").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_the_command_line_is_logged_without_secrets(
    node: NodeUnderTest, override: Callable[..., AppConfig], caplog: pytest.LogCaptureFixture
) -> None:
    backend = current().backends.llama_cpp
    args = [*backend.args, "--hf-token", "s3cret"]
    override(backends={"llama_cpp": backend.model_copy(update={"args": args})})
    caplog.set_level("INFO")
    node.start()
    instance = node.running()
    line = next(record for record in caplog.records if "--hf-token" in record.getMessage())
    assert "--hf-token ***" in line.getMessage()
    assert line.instance == "one"  # type: ignore[attr-defined]
    assert "s3cret" not in caplog.text
    assert f"key-{instance.pk}" not in caplog.text


def test_a_missing_program_fails_at_once(
    node: NodeUnderTest, override: Callable[..., AppConfig]
) -> None:
    backend = current().backends.llama_cpp.model_copy(update={"command": "/nowhere/llama-server"})
    override(backends={"llama_cpp": backend})
    node.start()
    node.create(restart_delay=0)
    node.ask_start()
    instance = node.reaches(Status.FAILED)
    assert instance.failure is not None
    assert instance.failure["reason"] == "executable_not_found"
    assert "/nowhere/llama-server" in instance.failure["details"]
    assert instance.failure["exit_code"] is None
    assert instance.pid is None
    assert not children()
    assert node.history() == ["starting", "failed"]


def test_a_program_that_can_not_be_executed_fails_at_once(
    node: NodeUnderTest, override: Callable[..., AppConfig], tmp_path: Path
) -> None:
    program = tmp_path / "broken"
    program.write_bytes(b"\x7fELF is not enough")
    program.chmod(0o755)
    backend = current().backends.llama_cpp.model_copy(update={"command": str(program), "args": []})
    override(backends={"llama_cpp": backend})
    node.start()
    node.create()
    node.ask_start()
    failure = node.reaches(Status.FAILED).failure
    assert failure is not None
    assert failure["reason"] == "executable_not_found"
    assert "Exec format error" in failure["details"]


@pytest.mark.parametrize("obstacle", ["file", "missing", "directory"])
def test_a_log_that_can_not_be_written_is_its_own_reason(
    node: NodeUnderTest,
    fake_backend: Callable[..., AppConfig],
    tmp_path: Path,
    obstacle: str,
) -> None:
    directory = tmp_path / "logs"
    if obstacle == "file":
        directory.touch()
    elif obstacle == "directory":
        (directory / "one.log").mkdir(parents=True)
    fake_backend(logs_dir=directory, auto_create_dirs=obstacle == "file")
    node.start()
    node.create(restart_delay=0)
    node.ask_start()
    failure = node.reaches(Status.FAILED).failure
    assert failure is not None
    assert failure["reason"] == "log_unwritable"
    assert f"the log {directory / 'one.log'} can't be written" in failure["details"]
    assert "instances.logs_dir" in failure["details"]
    assert not children()


def test_arguments_that_are_too_long_fail_at_once(supervised: NodeUnderTest) -> None:
    supervised.create(environment={"LONG": "x" * 140_000})
    supervised.ask_start()
    failure = supervised.reaches(Status.FAILED).failure
    assert failure is not None
    assert failure["reason"] == "bad_flag"
    assert "Argument list too long" in failure["details"]


def test_an_exit_before_ready_is_a_failure_within_moments(supervised: NodeUnderTest) -> None:
    supervised.create(FAKE_LOG_LINES="30", FAKE_PRINT="x" * 600, FAKE_EXIT_CODE="3")
    began = time.monotonic()
    supervised.ask_start()
    instance = supervised.reaches(Status.FAILED)
    assert time.monotonic() - began < 20
    failure = instance.failure
    assert failure is not None
    assert failure["exit_code"] == 3
    assert "exit code 3" in failure["details"]
    assert failure["log_tail"] == [f"line {number}" for number in range(11, 30)] + ["x" * 500]
    assert instance.pid is None
    assert supervised.history() == ["starting", "failed"]


def test_an_exit_with_code_0_before_ready_is_a_failure_too(supervised: NodeUnderTest) -> None:
    supervised.create(FAKE_EXIT_CODE="00")  # "0" says that the knob isn't set
    supervised.ask_start()
    instance = supervised.reaches(Status.FAILED)
    assert instance.failure is not None
    assert instance.failure["exit_code"] == 0


def test_a_signal_is_named_in_the_failure(supervised: NodeUnderTest) -> None:
    supervised.create(FAKE_CRASH_SIGNAL="9")
    supervised.ask_start()
    failure = supervised.reaches(Status.FAILED).failure
    assert failure is not None
    assert failure["exit_code"] == -9
    assert "SIGKILL" in failure["details"]


def test_a_failed_start_stays_failed_until_the_next_request(
    supervised: NodeUnderTest,
) -> None:
    supervised.create(FAKE_EXIT_CODE="1", restart_delay=0)
    supervised.ask_start()
    supervised.reaches(Status.FAILED)
    for _ in range(5):
        supervised.wake()
    time.sleep(0.1)
    assert supervised.history() == ["starting", "failed"]
    lifecycle.update("one", supervised.see().options | {"environment": {}}, cause="test")
    supervised.ask_start()
    assert supervised.reaches(Status.RUNNING).failure is None


def test_a_stop_of_a_failed_instance_clears_the_failure(supervised: NodeUnderTest) -> None:
    supervised.create(FAKE_EXIT_CODE="1")
    supervised.ask_start()
    supervised.reaches(Status.FAILED)
    supervised.ask_stop()
    supervised.reaches(Status.STOPPED)


def test_a_start_that_takes_too_long_fails(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig]
) -> None:
    fake_backend(start_timeout=2.5)
    node.start()
    node.create(FAKE_NEVER_HEALTHY="1", FAKE_LOG_LINES="1")
    node.ask_start()
    pid = until(lambda: node.see().pid)
    instance = node.reaches(Status.FAILED)
    assert instance.failure is not None
    assert instance.failure["reason"] == "timeout"
    assert "2.5 s" in instance.failure["details"]
    assert instance.failure["log_tail"][0] == "line 0"
    assert not is_alive(pid)
    assert node.history() == ["starting", "failed"]


def test_a_hung_start_fails_too(
    node: NodeUnderTest, fake_backend: Callable[..., AppConfig]
) -> None:
    fake_backend(start_timeout=0.4)
    is_over = threading.Event()
    node.start(check_health=lambda *_: ProbeAnswer(is_over.wait(2)))
    node.create()
    node.ask_start()
    failure = node.reaches(Status.FAILED).failure
    is_over.set()
    assert failure is not None
    assert failure["reason"] == "timeout"


def test_a_port_that_another_program_uses_is_replaced(supervised: NodeUnderTest) -> None:
    supervised.create()
    port = supervised.see().port
    with socket.create_server(("127.0.0.1", port)):
        supervised.ask_start()
        instance = supervised.reaches(Status.RUNNING)
    assert instance.port == port + 1
    assert f":{instance.port}" in supervised.log()


def test_a_replacement_is_never_another_instances_port(supervised: NodeUnderTest) -> None:
    supervised.create("one")
    other = supervised.create("two")
    with socket.create_server(("127.0.0.1", supervised.see("one").port)):
        supervised.ask_start("one")
        instance = supervised.reaches(Status.RUNNING, "one")
    assert instance.port == other.port + 1


def test_a_port_that_the_database_refuses_fails_the_start(
    supervised: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise DataError("no such port")

    monkeypatch.setattr(rows, "move_port", refuse)
    supervised.create()
    with socket.create_server(("127.0.0.1", supervised.see().port)):
        supervised.ask_start()
        failure = supervised.reaches(Status.FAILED).failure
    assert failure is not None
    assert failure["reason"] == "port_in_use"
    assert "log" in failure["details"]


def test_a_port_that_the_operator_chose_is_not_changed(supervised: NodeUnderTest) -> None:
    port = current().instances.port_range[0] + 50
    supervised.create(backend_options={"port": port}, restart_delay=0)
    with socket.create_server(("127.0.0.1", port)):
        supervised.ask_start()
        instance = supervised.reaches(Status.FAILED)
    assert instance.failure is not None
    assert instance.failure["reason"] == "port_in_use"
    assert str(port) in instance.failure["details"]
    assert instance.port == port
    assert not children()


def test_saved_options_that_can_not_be_read_fail_only_their_instance(
    supervised: NodeUnderTest,
) -> None:
    supervised.create("broken")
    Instance.objects.update(options={})
    supervised.ask_start("broken")
    failure = supervised.reaches(Status.FAILED, "broken").failure
    assert failure is not None
    assert "can't be read" in failure["details"]
    supervised.running("one")
