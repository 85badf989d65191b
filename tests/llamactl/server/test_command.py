"""``manage.py run``: refusals before a process is started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from llamactl.core.locks import acquire
from llamactl.management.commands import run
from llamactl.server.services import MARGIN_SECONDS
from tests.support.paths import ROOT


@pytest.fixture
def data_dir(tmp_path: Path, settings: Any) -> Path:
    """An own data directory, and an unused web port."""
    config = settings.LLAMACTL
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = config.server.model_copy(update={"port": probe.getsockname()[1]})
    settings.LLAMACTL = config.model_copy(update={"data_dir": tmp_path, "server": server})
    return tmp_path


def refusal(output: StringIO | None = None) -> str:
    with pytest.raises(CommandError) as refused:
        call_command("run", stdout=output or StringIO(), skip_checks=True)
    assert refused.value.returncode == 1
    return str(refused.value)


def test_a_second_instance_on_the_data_directory_is_refused(data_dir: Path) -> None:
    lock = acquire(data_dir / "run.lock")
    try:
        assert refusal() == (
            f"llamactl already runs on {data_dir} (process {os.getpid()}); stop it first, or set"
            " LLAMACTL_DATA_DIRECTORY to another directory"
        )
    finally:
        os.close(lock)


def test_a_port_in_use_is_refused_before_anything_starts(data_dir: Path, settings: Any) -> None:
    port = settings.LLAMACTL.server.port
    with socket.create_server(("127.0.0.1", port)):
        assert refusal() == (
            f"port {port} on 127.0.0.1 is in use; set LLAMACTL_PORT or server.port"
        )
    assert sorted(path.name for path in data_dir.iterdir()) == ["processes.lock", "run.lock"]
    # It should give its locks back.
    os.close(acquire(data_dir / "run.lock"))


def test_a_start_waits_for_the_processes_of_a_killed_run(data_dir: Path, settings: Any) -> None:
    lock = acquire(data_dir / "processes.lock")
    timer = threading.Timer(0.2, os.close, [lock])

    class Output(StringIO):
        def write(self, text: str) -> int:
            # The line is printed at the beginning of the wait: release the lock soon after it.
            if timer.ident is None:
                timer.start()
            return super().write(text)

    output = Output()
    with socket.create_server(("127.0.0.1", settings.LLAMACTL.server.port)):
        # It should get as far as the port.
        assert "is in use" in refusal(output)
    timer.join()
    assert output.getvalue() == "waiting for the processes of a killed run to end …\n"


def test_processes_of_a_killed_run_that_do_not_end_are_named(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "worker_grace_seconds", lambda config: -MARGIN_SECONDS)
    lock = acquire(data_dir / "processes.lock")
    argv = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=[lock]) as child:
        os.close(lock)
        text = refusal()
        child.communicate()
    assert text.startswith("processes of a killed run are still running")
    assert f"{child.pid} (python" in text


@pytest.mark.parametrize(("command", "exit_code"), [("run", 0), ("doctor", 130)])
def test_a_ctrl_c_while_a_command_is_loaded_ends_it_without_a_traceback(
    command: str, exit_code: int
) -> None:
    program = (
        f"import manage, signal, sys; sys.argv = ['manage.py', {command!r}];"
        " manage.run_command = lambda: signal.raise_signal(signal.SIGINT); manage.main()"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (exit_code, "", "")
