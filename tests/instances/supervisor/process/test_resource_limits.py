"""A process gets the limits of its instance, and the worker keeps its own."""

from __future__ import annotations

import os
import resource
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from instances.models import Instance
from instances.states import Status
from tests.instances.supervisor.conftest import NodeUnderTest, children


def limits_of(pid: int) -> dict[str, str]:
    """The lines of /proc/<pid>/limits by name: soft and hard limit."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): " ".join(line[26:].split()[:2]) for line in lines}


def failed(node: NodeUnderTest, **options: Any) -> Instance:
    node.create(**options)
    node.ask_start()
    return node.reaches(Status.FAILED)


def test_a_process_runs_under_its_limits(supervised: NodeUnderTest) -> None:
    cpu = min(os.sched_getaffinity(0))
    nice = min(os.getpriority(os.PRIO_PROCESS, 0) + 7, 19)  # the tests may be nice themselves
    instance = supervised.running(
        limits={
            "nice": nice,
            "cpus": str(cpu),
            "open_files": 128,
            "memory_mb": 2000,
            "core_dumps": False,
            "oom_score_adj": 900,
        }
    )
    pid = instance.pid
    assert pid is not None
    found = limits_of(pid)
    assert found["Max open files"] == "128 128"
    assert found["Max data size"] == f"{2000 * 2**20} {2000 * 2**20}"
    assert found["Max core file size"] == "0 0"
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):  # it has just ended; the first one has not
            assert os.sched_getaffinity(int(thread)) == {cpu}
            assert os.getpriority(os.PRIO_PROCESS, int(thread)) == nice
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "900"


def test_the_worker_keeps_its_own(supervised: NodeUnderTest) -> None:
    cpus, nice = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    limited = {"nice": 9, "cpus": str(min(cpus)), "open_files": 100}
    supervised.running(limits=limited)
    free = supervised.running("two")
    for thread in threading.enumerate():
        with suppress(ProcessLookupError):  # it has just ended
            if thread.native_id is not None:
                assert os.sched_getaffinity(thread.native_id) == cpus
                assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == nice
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == files
    assert free.pid is not None
    assert os.sched_getaffinity(free.pid) == cpus
    assert os.getpriority(os.PRIO_PROCESS, free.pid) == nice


def test_it_runs_in_its_working_directory(supervised: NodeUnderTest, tmp_path: Path) -> None:
    instance = supervised.running(working_directory=str(tmp_path))
    assert os.readlink(f"/proc/{instance.pid}/cwd") == str(tmp_path)


def test_a_working_directory_that_is_not_there_is_named(
    supervised: NodeUnderTest, tmp_path: Path
) -> None:
    failure = failed(supervised, working_directory=str(tmp_path / "gone")).failure
    assert failure is not None
    assert failure["reason"] == "bad_flag"
    assert str(tmp_path / "gone") in failure["details"]


def test_cpus_that_are_not_there_are_named(supervised: NodeUnderTest) -> None:
    failure = failed(supervised, limits={"cpus": "4000-4090"}).failure
    assert failure is not None
    assert failure["reason"] == "bad_flag"
    assert "limits.cpus is 4000-4090" in failure["details"]
    assert not children()


def test_a_limit_above_the_workers_own_is_named_and_leaves_no_process(
    supervised: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, kind: int, value: object) -> None:
        raise PermissionError  # what anybody but root gets

    monkeypatch.setattr(resource, "prlimit", refuse)
    failure = failed(supervised, limits={"open_files": 1_000_000}).failure
    assert failure is not None
    assert "limits.open_files is above" in failure["details"]
    assert not children()


def test_a_missing_program_is_still_said_to_be_missing(supervised: NodeUnderTest) -> None:
    failure = failed(supervised, limits={"nice": 5}, command_override="/no/such/program").failure
    assert failure is not None
    assert failure["reason"] == "executable_not_found"


def test_a_process_that_ends_at_once_is_a_crash_and_no_mistake(supervised: NodeUnderTest) -> None:
    every = {"nice": 5, "memory_mb": 2000, "open_files": 100, "oom_score_adj": 5}
    failure = failed(supervised, limits=every, FAKE_EXIT_CODE="3").failure
    assert failure is not None
    assert failure["exit_code"] == 3
