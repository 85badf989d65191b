"""The whole of llamactl in processes of its own, started and stopped as an operator would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
import requests

from llamactl.core.die_with_parent import end_with_parent
from tests.support.environment import STACK_PORTS, WEB_PORTS
from tests.support.paths import ROOT
from tests.support.until import until

START_SECONDS = 60
STOP_SECONDS = 60
END_SECONDS = 15
"""The bound for processes that end after llamactl itself, such as a guard."""

INSTANCE_PORTS = STACK_PORTS
_web_ports = cycle(WEB_PORTS[::2])
"""The port behind each is that of the backends' pages."""


def free_port() -> int:
    """Return a free port that stays free until it is used.

    A port chosen by the kernel could be given to the next program that asks for any port.
    """
    for port in _web_ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """Kill the processes that have not ended by themselves."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


class Stack:
    """``manage.py run`` on a data directory; may be started again after it ended."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: text for name, text in os.environ.items() if "LLAMACTL" not in name},
            "LLAMACTL_DATA_DIRECTORY": str(data_dir),
            "LLAMACTL_CONFIG_PATH": str(data_dir / "llamactl.yaml"),
            "LLAMACTL_PORT": str(self.port),
            "LLAMACTL_INSTANCE_PORT_RANGE": f"{INSTANCE_PORTS[0]}-{INSTANCE_PORTS[-1]}",
            # Tests stop instances to have a request start them; the hold has tests of its own.
            "LLAMACTL_OPERATOR_STOP_HOLD": "0",
            **environment,
        }
        data_dir.mkdir(parents=True, exist_ok=True)
        (data_dir / "llamactl.yaml").touch()
        self.arguments: list[str] = []
        """Further arguments of ``manage.py run``."""
        self.output = data_dir / "output.txt"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def ui_url(self) -> str:
        """The address of the backends' own pages."""
        return f"http://127.0.0.1:{self.port + 1}"

    @property
    def last_port(self) -> int:
        """The highest port of the instances: no instance gets it unless it asks for it."""
        return int(self.environment["LLAMACTL_INSTANCE_PORT_RANGE"].split("-")[1])

    def start(self) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "run", *self.arguments],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # At Ctrl-C pytest-xdist kills its workers, and no fixture ends the stack.
                preexec_fn=end_with_parent(),
            )
        until(self.is_up, "llamactl up", seconds=START_SECONDS)

    def is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output.read_text()[-3000:]
        try:
            return requests.get(f"{self.url}/healthz", timeout=1).ok and (
                "Ctrl-C" in self.output.read_text()
            )
        except requests.RequestException:
            return False

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this data directory: llamactl's and the backends."""
        found = []
        # psutil would keep earlier processes, whose pids may belong to others by now.
        psutil.process_iter.cache_clear()
        for process in psutil.process_iter():
            try:
                words = [*process.environ().values(), *process.cmdline()]
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
            except psutil.Error:
                continue
            if str(self.data_dir) in " ".join(words):
                found.append(process)
        return found

    def until_nothing_left(self) -> None:
        with suppress(AssertionError):
            until(lambda: not self.processes(), "nothing left", seconds=END_SECONDS)
        left = self.processes()
        assert not left, f"left behind: {left}"

    @property
    def database(self) -> Path:
        return self.data_dir / self.environment.get("LLAMACTL_DATABASE_PATH", "llamactl.db")

    @property
    def management_key(self) -> str:
        return (self.data_dir / "management_key").read_text().strip()

    def call(self, method: str, path: str, document: object = None) -> requests.Response:
        return requests.request(
            method,
            self.url + path,
            json=document,
            headers={"Authorization": f"Bearer {self.management_key}"},
            timeout=60,
        )

    def create(self, name: str, backend_options: dict[str, Any], **options: Any) -> dict[str, Any]:
        response = self.call(
            "POST",
            f"/api/v1/instances/{name}",
            {"backend_type": "llama_cpp", "backend_options": backend_options, **options},
        )
        assert response.status_code == 201, response.text
        created: dict[str, Any] = response.json()
        return created

    def instance(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/api/v1/instances/{name}").json()
        return found

    def until_status(self, name: str, status: str, within_seconds: float = 60) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            found = self.instance(name)
            return found if found["status"] == status else None

        return until(reached, f"{name} {status}", seconds=within_seconds)

    def clear(self) -> None:
        """Delete all instances and keys, so that other tests find the stack as good as new."""
        instances = self.call("GET", "/api/v1/instances").json()
        paths = [f"/api/v1/instances/{instance['name']}" for instance in instances]
        for path in paths:
            self.call("POST", f"{path}/stop")

        def is_deleted(path: str) -> bool:
            return self.call("DELETE", path).status_code in (204, 404)

        for path in paths:
            until(partial(is_deleted, path), f"{path} deleted", seconds=60)
        for key in self.call("GET", "/api/v1/auth/keys").json():
            self.call("DELETE", f"/api/v1/auth/keys/{key['id']}")

    def new_key(self, **fields: object) -> str:
        document = {"name": "test", "permission_mode": "allow_all", **fields}
        response = self.call("POST", "/api/v1/auth/keys", document)
        assert response.status_code == 201, response.text
        key: str = response.json()["key"]
        return key

    def backends(self, name: str) -> list[psutil.Process]:
        """The backend's processes; the embedded server's inner one goes with its outer one."""
        found = []
        for process in self.processes():
            try:
                command_line = process.cmdline()
                if f"--alias {name}" in " ".join(command_line) and "--inner" not in command_line:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def busy_slots(self, name: str) -> int | None:
        """Return ``None`` while the instance is not ready."""
        answer = self.call("GET", f"/api/v1/instances/{name}/proxy/slots")
        return sum(slot["is_processing"] for slot in answer.json()) if answer.ok else None

    def chat(self, name: str, key: str, **fields: object) -> requests.Response:
        document = {
            "model": name,
            "messages": [{"role": "user", "content": "Say hello."}],
            "max_tokens": 8,
            **fields,
        }
        return requests.post(
            f"{self.url}/v1/chat/completions",
            data=json.dumps(document),
            headers={"Authorization": f"Bearer {key}"},
            timeout=120,
        )


def running_stack(data_dir: Path, **environment: str) -> Iterator[Stack]:
    """Yield a started stack; a process that is left afterwards fails the test."""
    stack = Stack(data_dir, **environment)
    try:
        stack.start()
        yield stack
    finally:
        try:
            if stack.process is not None and stack.process.poll() is None:
                stack.interrupt()
            stack.until_nothing_left()
        finally:
            kill_all(stack.processes())
