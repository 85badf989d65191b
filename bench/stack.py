"""A whole llamactl for the length of a benchmark: one command, a temporary data directory."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import psutil
import requests

from bench.management import ManagementApi
from bench.processes import Groups, end, listeners, tree
from bench.systems import FAKE_BACKEND, System, free_port

REPOSITORY = Path(__file__).resolve().parent.parent
INSTANCE = "bench"
START_SECONDS = 120.0
STOP_SECONDS = 60.0
LOG_TAIL_LINES = 30


@contextmanager
def llamactl_system(name: str, settings: Mapping[str, str]) -> Iterator[System]:
    """llamactl with one running instance, which is the fake backend, and one inference key.

    1. start ``manage.py run`` (broker, worker and web) and wait until it answers;
    2. create the instance and the key over the management API, as an operator would;
    3. after the block, also one that raised: stop the instance, then the program, then whatever
       is left of its processes; remove the directory (but keep it when something failed).

    `settings` are further LLAMACTL_* variables. Raises RuntimeError, with the end of the
    program's output, when it does not come up.
    """
    directory = Path(tempfile.mkdtemp(prefix="llamactl-bench-"))
    port = free_port()
    management_key = secrets.token_urlsafe(32)
    log_path = directory / "llamactl.log"
    with log_path.open("wb") as log:
        program = subprocess.Popen(
            [sys.executable, str(REPOSITORY / "manage.py"), "run"],
            env=_environment(directory, port, management_key, settings),
            cwd=directory,  # not the repository: its .env would change what is measured
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours alone; we stop it in order
        )
    api = ManagementApi(f"http://127.0.0.1:{port}", management_key)
    root = psutil.Process(program.pid)
    seen: set[psutil.Process] = set()
    has_failed = False
    try:
        _await_up(api, program)
        api.create_instance(INSTANCE, str(_command(directory)))
        key = api.create_inference_key("bench")
        backend_port = api.start_instance(INSTANCE, timeout_seconds=START_SECONDS)
        seen.update(tree(root))
        system = System(
            name=name,
            base_url=f"http://127.0.0.1:{port}",
            keys=(key,),
            model=INSTANCE,
            processes=_groups(root, port, backend_port),
        )
        refuse_open_door(system)
        yield system
    except RuntimeError as error:
        has_failed = True
        lines = log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        told = [str(error), f"see {directory}; the end of llamactl's output:", *lines]
        raise RuntimeError("\n".join(told)) from error
    finally:
        _stop(api, program, seen | set(tree(root)))
        if not has_failed:
            shutil.rmtree(directory, ignore_errors=True)


def refuse_open_door(system: System) -> None:
    """Raises RuntimeError unless a request without a key gets 401: else no check is measured."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy of the environment's in between
        answer = session.post(
            f"{system.base_url}/v1/chat/completions",
            json={"model": system.model, "messages": []},
            timeout=START_SECONDS,
        )
    if answer.status_code != 401:
        raise RuntimeError(f"a request without a key got {answer.status_code}, not 401")


def _environment(
    directory: Path, port: int, management_key: str, settings: Mapping[str, str]
) -> dict[str, str]:
    """Our environment without its own LLAMACTL_* settings, and with those of the benchmark."""
    config = directory / "llamactl.yaml"
    config.write_text("{}\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLAMACTL_")}
    first_port = min(free_port(), 65000)  # the range must not leave the ports there are
    return {
        **environment,
        "LLAMACTL_CONFIG_PATH": str(config),
        "LLAMACTL_DATA_DIRECTORY": str(directory / "data"),
        "LLAMACTL_HOST": "127.0.0.1",
        "LLAMACTL_PORT": str(port),
        "LLAMACTL_INSTANCE_PORT_RANGE": f"{first_port}-{first_port + 99}",
        "LLAMACTL_MANAGEMENT_KEYS": management_key,
        **settings,
    }


def _command(directory: Path) -> Path:
    """An executable file that is the fake backend: `command_override` takes no arguments."""
    path = directory / "fake-llama-server"
    argv = shlex.join([sys.executable, str(FAKE_BACKEND)])
    path.write_text(f'#!/bin/sh\nexec {argv} "$@"\n')
    path.chmod(0o755)
    return path


def _await_up(api: ManagementApi, program: subprocess.Popen[bytes]) -> None:
    give_up_at = monotonic() + START_SECONDS
    while not api.is_up():
        if program.poll() is not None:
            raise RuntimeError(f"llamactl ended with exit code {program.returncode}")
        if monotonic() > give_up_at:
            raise RuntimeError(f"llamactl does not answer after {START_SECONDS:g} s")
        sleep(0.1)


def _groups(root: psutil.Process, port: int, backend_port: int) -> Groups:
    proxy = listeners(port)  # `run` itself is one: it holds the socket open, and sleeps
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
            api.stop_instance(INSTANCE, timeout_seconds=STOP_SECONDS)
    except RuntimeError as error:
        print(f"the instance did not stop: {error}", file=sys.stderr)
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
