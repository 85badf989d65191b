"""``python -m bench.hostile``: the longest stall of ``/healthz``, and the peak memory.

Sends each hostile request on a connection of its own to a llamactl of our own, while ``/healthz``
is asked without a pause. A stall is counted in CPU time of the event loop's thread while one answer
of ``/healthz`` is awaited, so that a busy machine makes no stall.

Exit status: 0 within the limits, 1 beyond them, 2 an answer is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

import psutil

from bench.hostile.inputs import all_inputs
from bench.hostile.request import COOKIES, CSRF, KEY, MANAGEMENT, MIB, Input, admin_post, head
from bench.hostile.session import CSRF_TOKEN, session_cookies
from bench.processes import listeners
from bench.report import table
from bench.stack import REPOSITORY, START_SECONDS, Stack, llamactl_stack

MAX_STALL_SECONDS = 0.05
ANSWER_SECONDS = 60.0
QUIET_SECONDS = 0.2
"""After the last byte of an answer."""
WORST = 10
WARM_PATHS = (
    b"/admin/login/",
    b"/admin/instances/instance/",
    b"/admin/instances/instance/add/",
    b"/admin/keys/inferencekey/",
    b"/admin/nodes/node/",
    b"/admin/auth/user/",
    b"/admin/auth/group/add/",
    b"/api/v1/instances",
    b"/healthz",
)


@dataclass
class Result:
    """What one request did to the others."""

    input: Input
    status: str
    stall_seconds: float
    """CPU time of the event loop during the longest answer of ``/healthz``."""
    healthz_seconds: float
    """The longest answer by the clock, with what a busy machine adds."""
    grown_bytes: int

    @property
    def allowed_bytes(self) -> int:
        return 3 * self.input.size + MIB


class Probe(Thread):
    """Asks ``/healthz`` on one connection without a pause, and keeps the longest answers."""

    def __init__(self, port: int, web: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        self._schedstat = Path(f"/proc/{web.pid}/task/{web.pid}/schedstat")
        self._is_ended = Event()
        self.reset()

    def reset(self) -> None:
        self.longest_seconds = 0.0
        self.longest_cpu_seconds = 0.0

    def end(self) -> None:
        self._is_ended.set()
        self.join()
        self._connection.close()

    def run(self) -> None:
        while not self._is_ended.wait(0.001):
            began_at, cpu_before = perf_counter(), self._loop_cpu_seconds()
            self._connection.request("GET", "/healthz")
            self._connection.getresponse().read()
            cpu_seconds = self._loop_cpu_seconds() - cpu_before
            self.longest_cpu_seconds = max(self.longest_cpu_seconds, cpu_seconds)
            self.longest_seconds = max(self.longest_seconds, perf_counter() - began_at)

    def _loop_cpu_seconds(self) -> float:
        """CPU time of the event loop's thread, which is the main one."""
        return int(self._schedstat.read_text().split()[0]) / 1e9


async def send(port: int, each: Input) -> str:
    """The status of the answer, or what came instead; the rest of the answer is read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def write(data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # refused before its end
            for at in range(0, len(data), MIB):
                writer.write(data[at : at + MIB])
                await writer.drain()

    writing = asyncio.create_task(write(each.request))
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await reader.readline()
        if each.then:
            await writing
            writing = asyncio.create_task(write(each.then))
            await asyncio.wait((writing,), timeout=ANSWER_SECONDS)
        await _discard(reader)
    except ConnectionError:
        return "closed"
    except TimeoutError:
        return "no answer"
    finally:
        writing.cancel()
        writer.close()
    return line.split()[1].decode() if line else "closed"


async def _discard(reader: asyncio.StreamReader) -> None:
    """Read until nothing comes for a while."""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while True:
            async with asyncio.timeout(QUIET_SECONDS):
                if not await reader.read(MIB):
                    return


def reset_peak(process: psutil.Process) -> int:
    """Reset the process's peak of resident memory (VmHWM, proc(5)); return its present size."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return memory(process, "VmRSS")


def memory(process: psutil.Process, name: str) -> int:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise LookupError(name)


async def measure(stack: Stack, secrets: Mapping[bytes, bytes], only: str) -> list[Result]:
    # The parent process holds the listening socket too.
    web = next(each for each in listeners(stack.port) if each != stack.root)
    probe = Probe(stack.port, web)
    probe.start()
    results = []
    await warm_up(stack.port, secrets)
    for each in all_inputs():
        if not re.search(only, each.name):
            continue
        beginning, end = each.request[:MIB], each.request[MIB:]
        for placeholder, secret in secrets.items():
            beginning = beginning.replace(placeholder, secret, 1)
        before = reset_peak(web)
        probe.reset()
        status = await send(stack.port, replace(each, request=beginning + end))
        grown = memory(web, "VmHWM") - before
        stall = probe.longest_cpu_seconds
        results.append(Result(each, status, stall, probe.longest_seconds, grown))
    probe.end()
    return results


async def warm_up(port: int, secrets: Mapping[bytes, bytes]) -> None:
    """Ask for the pages once: the first of each imports modules and compiles templates."""
    for path in WARM_PATHS:
        for each in (
            head(b"Cookie: " + secrets[COOKIES], target=path),
            admin_post(path, b"application/x-www-form-urlencoded", b"name=%21", name="warm-up"),
        ):
            request = each.request.replace(COOKIES, secrets[COOKIES]).replace(CSRF, secrets[CSRF])
            await send(port, replace(each, request=request))


def print_results(results: list[Result]) -> None:
    worst = sorted(results, key=lambda each: each.stall_seconds, reverse=True)[:WORST]
    largest = sorted(results, key=lambda each: each.grown_bytes - each.allowed_bytes)[-WORST:]
    columns = ["request", "bytes", "status", "stall ms", "/healthz ms", "MiB more", "MiB allowed"]
    rows = [
        [
            each.input.name.partition("\r")[0],
            f"{each.input.size:,}",
            each.status,
            f"{each.stall_seconds * 1000:.0f}",
            f"{each.healthz_seconds * 1000:.0f}",
            f"{each.grown_bytes / MIB:.1f}",
            f"{each.allowed_bytes / MIB:.1f}",
        ]
        for each in [*worst, *largest]
    ]
    print(table([columns, *rows]))
    print(f"{len(results)} requests; longest stall {worst[0].stall_seconds * 1000:.0f} ms")


def start_backend(stack: Stack) -> None:
    """Start the instance ``hostile``, whose program is ``backend``."""
    program = stack.directory / "hostile-llama-server"
    argv = shlex.join([sys.executable, str(Path(__file__).with_name("backend.py"))])
    program.write_text(f'#!/bin/sh\nexec {argv} "$@"\n')
    program.chmod(0o755)
    stack.api.create_instance("hostile", str(program))
    stack.api.start_instance("hostile", timeout_seconds=START_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.hostile")
    parser.add_argument("--only", default="", help="a pattern of the names of the inputs")
    parser.add_argument(
        "--repository", type=Path, default=REPOSITORY, help="measure the revision in this directory"
    )
    given = parser.parse_args()
    settings = {"LLAMACTL_WEB_PROCESSES": "1"}
    with llamactl_stack(settings, repository=given.repository) as stack:
        start_backend(stack)
        secrets = {
            KEY: stack.api.create_inference_key("hostile").encode(),
            MANAGEMENT: stack.api.key.encode(),
            COOKIES: session_cookies(stack, given.repository).encode(),
            CSRF: CSRF_TOKEN.encode(),
        }
        results = asyncio.run(measure(stack, secrets, given.only))
    print_results(results)
    if any(each.status == "no answer" for each in results):
        return 2
    is_within = all(
        each.stall_seconds <= MAX_STALL_SECONDS and each.grown_bytes <= each.allowed_bytes
        for each in results
    )
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())
