"""The compared systems: the addresses that get the load, and the processes behind them."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit

import psutil
import requests

from bench.processes import Groups, end, listeners

REPOSITORY = Path(__file__).resolve().parent.parent
FAKE_BACKEND = REPOSITORY / "tests" / "support" / "fake_backend" / "program.py"
DIRECT = "direct"
ANSWER_SECONDS = 30


@dataclass(frozen=True)
class System:
    """A server that answers ``POST <base_url>/v1/chat/completions``.

    `keys` are dealt out to the clients in turn; `model` is the model of the requests; `processes`
    on this machine have their CPU time shown; `fresh_bytes` is the memory of the proxy's processes
    before any load, since a process seldom gives memory back; `backend_url` is the fake backend
    itself, "" where unknown.
    """

    name: str
    base_url: str
    keys: tuple[str, ...]
    model: str
    processes: Groups = field(default_factory=dict)
    fresh_bytes: int = 0
    backend_url: str = ""


def free_port() -> int:
    """A TCP port that is free on the loopback address at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_port(port: int, process: subprocess.Popen[bytes], *, timeout_seconds: float) -> None:
    """Wait until a program of ours listens. Raises RuntimeError when it does not."""
    give_up_at = monotonic() + timeout_seconds
    while monotonic() < give_up_at and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port} (exit code {process.poll()})")


def answered_status(system: System, *, key: str = "") -> int:
    """The status that one request gets, with this key or without any; 0: no answer."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy of the environment's in between
        try:
            answer = session.post(
                f"{system.base_url}/v1/chat/completions",
                json={"model": system.model, "messages": [{"role": "user", "content": "Hello"}]},
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=ANSWER_SECONDS,
            )
        except requests.RequestException:
            return 0
    return answer.status_code


def await_answer(system: System, *, timeout_seconds: float) -> None:
    """Wait until a request gets 200 with the system's last key. Raises RuntimeError."""
    give_up_at = monotonic() + timeout_seconds
    while (status := answered_status(system, key=system.keys[-1])) != 200:
        if monotonic() > give_up_at:
            raise RuntimeError(f"{system.name} answers a request with {status or 'nothing'}")
        sleep(0.1)


@contextmanager
def direct_system(port: int, *, model: str) -> Iterator[System]:
    """The fake backend with nothing before it, as long as the block lasts; port 0: any."""
    port = port or free_port()
    argv = [sys.executable, str(FAKE_BACKEND), "--port", str(port), "--alias", model]
    backend = subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True)
    process = psutil.Process(backend.pid)
    try:
        await_port(port, backend, timeout_seconds=10)
        url = f"http://127.0.0.1:{port}"
        yield System(
            name=DIRECT,
            base_url=url,
            keys=("unused",),
            model=model,
            processes={"backend": (process,)},
            backend_url=url,
        )
    finally:
        end([process], grace_seconds=5)
        backend.wait()


def running_system(
    name: str, base_url: str, key: str, model: str, backend: Sequence[psutil.Process]
) -> System:
    """A proxy that was started by others; `backend` is its presumed backend."""
    url = urlsplit(base_url)
    if url.scheme != "http" or url.hostname is None:
        raise ValueError(f"{base_url!r}: must be http://host:port")
    processes = {"backend": tuple(backend)}
    if _is_here(url.hostname):
        processes["proxy"] = listeners(url.port or 80)
    return System(
        name=name,
        base_url=base_url.rstrip("/"),
        keys=(key,) if key else (),
        model=model,
        processes=processes,
    )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
