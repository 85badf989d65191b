from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instances.supervisor import standstill
from instances.supervisor.process.pidfd import Marker, Process, spawn
from instances.supervisor.standstill import stopped
from tests.support.until import until

PROGRAM = """
import os, threading, time
if os.fork() == 0: time.sleep(60)
for _ in range(3): threading.Thread(target=time.sleep, args=(60,)).start()
print("up", flush=True)
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """One with threads and a child."""
    with (tmp_path / "log").open("wb") as log:
        process = spawn(
            [sys.executable, "-S", "-c", PROGRAM],
            environment=dict(os.environ),
            marker=Marker("node", "1:one", "launch"),
            directory=tmp_path,
            log=log.fileno(),
        )
    until(lambda: (tmp_path / "log").read_bytes() == b"up\n")
    yield process
    process.signal_group(signal.SIGKILL)
    process.bury()


def states(process: Process) -> set[str]:
    """Of every thread of the process and its child."""
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    found = set()
    for pid in (str(process.pid), child):
        for task in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{task}/stat").read_text()
            found.add(text.rpartition(")")[2].split()[0])
    return found


def test_every_thread_and_child_stops_and_goes_on(process: Process) -> None:
    with stopped(process):
        assert states(process) == {"T"}
    until(lambda: states(process) == {"S"})


def test_it_goes_on_after_an_error(process: Process) -> None:
    with pytest.raises(OSError, match="disk"), stopped(process):
        raise OSError("disk")
    until(lambda: states(process) == {"S"})


def test_one_that_does_not_stop_in_time_goes_on(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standstill, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(standstill, "_is_at_rest", lambda group: False)
    with pytest.raises(OSError, match="did not stop"), stopped(process):
        pytest.fail("it has not stopped")
    until(lambda: states(process) == {"S"})


def test_one_that_somebody_else_stopped_is_left_alone(process: Process) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    until(lambda: "T" in states(process))
    with pytest.raises(OSError, match="debugger"), stopped(process):
        pytest.fail("it is not ours")
    assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_one_that_has_ended_is_no_obstacle(process: Process) -> None:
    os.kill(process.pid, signal.SIGKILL)
    until(process.has_exited)
    with stopped(process):
        assert process.has_exited()
