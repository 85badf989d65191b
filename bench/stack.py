"""A whole llamactl for the length of a benchmark: one command, a temporary data directory."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import IO

import psutil

from bench.management import ManagementApi
from bench.processes import Groups, end, listeners, tree
from bench.systems import FAKE_BACKEND, System, answered_status, await_answer, free_port

REPOSITORY = Path(__file__).resolve().parent.parent
INSTANCE = "bench"
START_SECONDS = 120.0
STOP_SECONDS = 60.0
LOG_TAIL_LINES = 30
PORTS = 200


@dataclass(frozen=True)
class Stack:
    """A running llamactl.

    `environment` makes another process part of this llamactl; `seen` are processes that must be
    gone afterwards, in addition to the descendants of `root`.
    """

    directory: Path
    environment: Mapping[str, str]
    port: int
    root: psutil.Process
    api: ManagementApi
    seen: set[psutil.Process] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        """Where its web processes listen."""
        return f"http://127.0.0.1:{self.port}"

    def command(self, *arguments: str) -> str:
        """Write a file that starts the fake backend: `command_override` takes no arguments."""
        path = self.directory / "-".join(["fake-llama-server", *arguments])
        argv = shlex.join([sys.executable, str(FAKE_BACKEND), *arguments])
        path.write_text(f'#!/bin/sh\nexec {argv} "$@"\n')
        path.chmod(0o755)
        return str(path)

    def populate(self, *, keys: int, instances: int) -> list[str]:
        """Make as many rows more, at once; returns the plain texts of the new keys."""
        argv = [sys.executable, "-m", "bench.population", str(keys), str(instances), INSTANCE]
        made = subprocess.run(
            argv, env=self.environment, cwd=self.directory, check=False, stdout=subprocess.PIPE
        )
        if made.returncode:
            raise RuntimeError(f"the database could not be filled (exit code {made.returncode})")
        plain: list[str] = json.loads(made.stdout)
        return plain


def _run(
    repository: Path, directory: Path, environment: Mapping[str, str], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start ``manage.py run`` in ``directory``."""
    return subprocess.Popen(
        [sys.executable, str(repository / "manage.py"), "run"],
        env=environment,
        cwd=directory,  # not the repository: its .env would change the measurement
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is ours alone; we stop it in order
    )


@contextmanager
def llamactl_stack(
    settings: Mapping[str, str], *, repository: Path = REPOSITORY
) -> Iterator[Stack]:
    """llamactl as ``manage.py run`` starts it (broker, worker and web), once it answers.

    After the block, also one that raised: stop the instances, then the program, then the
    remaining processes; remove the directory, but keep it after a failure.

    `settings` are further LLAMACTL_* variables, `repository` another revision. Raises
    RuntimeError, with the end of the program's output, when llamactl does not come up.
    """
    directory = Path(tempfile.mkdtemp(prefix="llamactl-bench-"))
    port = free_port()
    management_key = secrets.token_urlsafe(32)
    environment = _environment(directory, port, management_key, settings, repository)
    log_path = directory / "llamactl.log"
    with log_path.open("wb") as log:
        program = _run(repository, directory, environment, log)
    api = ManagementApi(f"http://127.0.0.1:{port}", management_key)
    stack = Stack(directory, environment, port, psutil.Process(program.pid), api)
    has_failed = False
    try:
        _await_up(api, program)
        yield stack
    except RuntimeError as error:
        has_failed = True
        lines = log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        told = [str(error), f"see {directory}; the end of llamactl's output:", *lines]
        raise RuntimeError("\n".join(told)) from error
    finally:
        _stop(api, program, stack.seen | set(tree(stack.root)))
        if not has_failed:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def llamactl_system(
    name: str, settings: Mapping[str, str], *, keys: int = 1, instances: int = 1
) -> Iterator[System]:
    """llamactl with one running instance, which is the fake backend, and inference keys.

    The first instance and key are made over the management API, as an operator would; further
    rows are written to the database.
    """
    with llamactl_stack(settings) as stack:
        api = stack.api
        api.create_instance(INSTANCE, stack.command())
        all_keys = [api.create_inference_key("bench")]
        if keys > 1 or instances > 1:
            all_keys += stack.populate(keys=keys - 1, instances=instances - 1)
        backend_port = api.start_instance(INSTANCE, timeout_seconds=START_SECONDS)
        stack.seen.update(tree(stack.root))
        system = System(
            name=name,
            base_url=stack.base_url,
            keys=_sample(all_keys, 256),
            model=INSTANCE,
            processes=groups(stack.root, stack.port, backend_port),
            backend_url=f"http://127.0.0.1:{backend_port}" if backend_port else "",
        )
        await_answer(system, timeout_seconds=START_SECONDS)  # the table has the last key
        refuse_open_door(system)
        yield system


def _sample(keys: Sequence[str], most: int) -> tuple[str, ...]:
    """Keys from the beginning to the end; no run has more clients that send one each."""
    return tuple(keys[:: max(1, -(-len(keys) // most))])


def refuse_open_door(system: System) -> None:
    """Raises RuntimeError unless a request without a key gets 401: else no check is measured."""
    if (status := answered_status(system)) != 401:
        raise RuntimeError(f"a request without a key got {status or 'no answer'}, not 401")


def _environment(
    directory: Path, port: int, management_key: str, settings: Mapping[str, str], repository: Path
) -> dict[str, str]:
    """Our environment, with the LLAMACTL_* settings of the benchmark alone."""
    config = directory / "llamactl.yaml"
    config.write_text("{}\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLAMACTL_")}
    first_port = min(free_port(), 65000)  # the range must not leave the ports there are
    return {
        **environment,
        "PYTHONPATH": str(repository),
        "LLAMACTL_CONFIG_PATH": str(config),
        "LLAMACTL_DATA_DIRECTORY": str(directory / "data"),
        "LLAMACTL_HOST": "127.0.0.1",
        "LLAMACTL_PORT": str(port),
        "LLAMACTL_INSTANCE_PORT_RANGE": f"{first_port}-{first_port + PORTS - 1}",
        "LLAMACTL_MANAGEMENT_KEYS": management_key,
        **settings,
    }


def _await_up(api: ManagementApi, program: subprocess.Popen[bytes]) -> None:
    give_up_at = monotonic() + START_SECONDS
    while not api.is_up():
        if program.poll() is not None:
            raise RuntimeError(f"llamactl ended with exit code {program.returncode}")
        if monotonic() > give_up_at:
            raise RuntimeError(f"llamactl does not answer after {START_SECONDS:g} s")
        sleep(0.1)


def groups(root: psutil.Process, port: int, backend_port: int) -> Groups:
    """Group llamactl's processes by their role in the measurement."""
    # `run` itself listens too: it holds the socket open, and sleeps.
    proxy = tuple(process for process in listeners(port) if process != root)
    backend = listeners(backend_port) if backend_port else ()
    rest = tuple(p for p in tree(root) if p not in proxy and p not in backend)
    return {"proxy": proxy, "backend": backend, "rest": rest}


def _stop(
    api: ManagementApi, program: subprocess.Popen[bytes], seen: Iterable[psutil.Process]
) -> None:
    """In the order an operator would; `seen` are all processes that must be gone afterwards."""
    try:
        # Before the program goes: backends may outlive their worker on purpose.
        if program.poll() is None and api.is_up():
            api.stop_all(timeout_seconds=STOP_SECONDS)
    except RuntimeError as error:
        print(f"the instances did not stop: {error}", file=sys.stderr)
    finally:
        api.close()
        if program.poll() is None:
            program.terminate()
        try:
            program.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print("llamactl did not stop in time; ending its processes", file=sys.stderr)
        end(seen, grace_seconds=5)
        program.wait()
