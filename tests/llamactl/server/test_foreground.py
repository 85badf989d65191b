"""The foreground process: its memory, and what it keeps of the process that prepared it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from llamactl.core.locks import Locked, acquire
from tests.support.paths import ROOT
from tests.support.until import until

STAND_IN = ROOT / "tests" / "support" / "stand_in_service.py"

PREPARATION = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
from llamactl.core.locks import acquire
from llamactl.server.child import ProcessSpec
from llamactl.server.foreground import Plan, replace_process
directory, stand_in = map(Path, sys.argv[1:3])
sys.argv = ["manage.py", "run"]
service = [sys.executable, "-I", "-S", str(stand_in), str(directory)]
spec = ProcessSpec(
    name="a",
    argv=[*service, "a"],
    is_ready=(directory / "a.pid").exists,
    grace_seconds=10.0,
)
plan = Plan(
    [[spec]],
    locks=[acquire(directory / "run.lock")],
    inherited=[acquire(directory / "processes.lock")],
    began=time.monotonic(),
    banner="ready ({seconds} s), data in {seconds}",
    demo=[*service, "demo"],
)
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Start a preparation, whose last statements are given; its output goes to a pipe."""

    def start(end: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PREPARATION + end, str(tmp_path), str(STAND_IN)],
            cwd=ROOT,
            env={name: text for name, text in os.environ.items() if "LLAMACTL" not in name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def test_the_foreground_process_needs_none_of_the_large_packages() -> None:
    """It should stay at a tenth of the memory that the preparation needs."""
    program = "import sys, llamactl.server.foreground; print(*sys.modules)"
    argv = [sys.executable, "-c", program]
    loaded = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    packages = {name.partition(".")[0] for name in loaded.split()}
    assert "llamactl" in packages
    assert not packages & {"django", "celery", "kombu", "pydantic", "valkey", "asyncio", "psutil"}


def test_the_process_that_prepared_becomes_the_foreground_process(
    start: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    with start("replace_process(plan)") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("a ready (")
        assert process.stdout.readline().endswith(" s), data in {seconds}\n")
        command_line = psutil.Process(process.pid).cmdline()
        assert command_line[1:] == [str(ROOT / "manage.py"), "run"]
        # It should hold both locks, and no child the lock that shows that llamactl runs.
        for name in ("run.lock", "processes.lock"):
            with pytest.raises(Locked) as locked:
                acquire(tmp_path / name)
            assert locked.value.pid == process.pid
        service = psutil.Process(int((tmp_path / "a.pid").read_text()))
        held = {Path(file.path).name for file in service.open_files()}
        assert held & {"run.lock", "processes.lock"} == {"processes.lock"}
        assert "_LLAMACTL_FOREGROUND_FD" not in service.environ()
        until((tmp_path / "demo.pid").exists, "the demo's program runs")
        demo = psutil.Process(int((tmp_path / "demo.pid").read_text()))
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0, rest
    assert rest.startswith("stopping: SIGINT received; a second Ctrl-C kills\na stopped (")
    assert not demo.is_running()
    os.close(acquire(tmp_path / "run.lock"))


def test_a_ctrl_c_while_the_process_is_replaced_is_a_clean_stop(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    # The signal is pending when the new program begins, as one of that moment is.
    end = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
    end += "os.kill(os.getpid(), signal.SIGINT)\nreplace_process(plan)"
    with start(end) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert output.startswith("stopping: SIGINT received")


def test_a_process_that_cannot_be_replaced_goes_on_with_its_signals(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    end = """
sys.executable = str(directory / "removed")
try:
    replace_process(plan)
except OSError as error:
    print(error.strerror, signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    with start(end) as process:
        output, _ = process.communicate(timeout=30)
    assert output == "No such file or directory set()\n"
