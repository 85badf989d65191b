"""Checks of the web address and of the workers' heartbeats."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass

from llamactl.config import AppConfig
from llamactl.doctor.diagnosis import Diagnosis, note, ok, problem, warning
from llamactl.server.sockets import is_loopback, local_host

TIMEOUT_SECONDS = 3.0
STALE_AFTER_SECONDS = 10.0
START_WORKER = "start llamactl ('make run', or the service llamactl-worker)"


@dataclass(frozen=True)
class WebFacts:
    host: str
    port: int
    is_listening: bool
    is_ours: bool = False
    status: int = 0
    error: str = ""
    open_apis: tuple[str, ...] = ()
    """Settings that allow requests without a key."""


def collect_web(config: AppConfig) -> WebFacts:
    host, port = config.server.host, config.server.port
    auth = config.auth
    open_apis = tuple(
        f"auth.{name}"
        for name in ("require_management_auth", "require_inference_auth")
        if not getattr(auth, name)
    )
    probe = http.client.HTTPConnection(local_host(host).strip("[]"), port, timeout=TIMEOUT_SECONDS)
    try:
        probe.request("GET", "/healthz")
        answer = probe.getresponse()
        body = answer.read(200)
    except ConnectionRefusedError:
        return WebFacts(host, port, is_listening=False, open_apis=open_apis)
    except (OSError, http.client.HTTPException) as error:
        what = str(error) or type(error).__name__
        return WebFacts(host, port, is_listening=True, error=what, open_apis=open_apis)
    finally:
        probe.close()
    try:
        is_ours = json.loads(body) == {"status": "ok"}
    except ValueError:
        is_ours = False
    return WebFacts(host, port, True, is_ours, answer.status, open_apis=open_apis)


def diagnose_web(facts: WebFacts, *, has_run_before: bool) -> Iterator[Diagnosis]:
    where = f"{facts.host}:{facts.port}"
    if not facts.is_listening:
        text = f"nothing listens on {where}"
        if has_run_before:
            yield problem("web", text, "start llamactl ('make run', or the service llamactl-web)")
        else:
            yield ok("web", f"{text}: the port is free")
    elif facts.error:
        yield problem("web", f"{where} does not answer: {facts.error}", "restart llamactl-web")
    elif not facts.is_ours:
        yield problem(
            "web",
            f"another program answers on {where} (HTTP {facts.status})",
            "end that program, or set LLAMACTL_PORT or server.port",
        )
    else:
        yield ok("web", f"llamactl answers on {where}")
    if facts.open_apis and not is_loopback(facts.host):
        yield warning(
            "web",
            f"{where} accepts requests without a key: {' and '.join(facts.open_apis)} false",
            "set them to true, or listen on 127.0.0.1",
        )


@dataclass(frozen=True)
class WorkerFacts:
    node: str
    age_seconds: float | None
    """Age of the last heartbeat; ``None`` if there was none."""
    is_local: bool = True
    is_drained: bool = False
    lock_holder: int | None = None
    """Pid of the process that holds the node's lock."""
    is_known: bool = True
    """Whether the node's row could be read."""


def diagnose_worker(facts: WorkerFacts) -> Iterator[Diagnosis]:
    if facts.age_seconds is not None and facts.age_seconds < STALE_AFTER_SECONDS:
        yield ok("worker", f"{facts.node} is alive")
    elif not facts.is_known:
        yield _diagnose_without_row(facts)
    else:
        yield _diagnose_without_heartbeat(facts)
    if facts.is_drained:
        yield note(
            "worker",
            f"{facts.node} is drained and starts no instance",
            f"to end the drain: manage.py drain --node {facts.node} --resume",
        )


def _diagnose_without_row(facts: WorkerFacts) -> Diagnosis:
    if facts.lock_holder is not None:
        return note(
            "worker",
            f"process {facts.lock_holder} holds the lock of {facts.node}; its heartbeat can't be"
            " read",
        )
    return problem(
        "worker",
        f"no process holds the lock of {facts.node}: no instance is started or stopped",
        START_WORKER,
    )


def _diagnose_without_heartbeat(facts: WorkerFacts) -> Diagnosis:
    silence = f"{facts.node} has sent no heartbeat {_since(facts.age_seconds)}"
    if not facts.is_local:
        remedy = "check its host; if the host was removed, delete the node in the admin"
        return warning("worker", silence, remedy)
    if facts.lock_holder is not None:
        return problem(
            "worker",
            f"{silence}, yet process {facts.lock_holder} holds its lock",
            "check that the database is writable; if that process hangs, end it: the backends keep"
            " running",
        )
    return problem("worker", f"{silence}: no instance is started or stopped", START_WORKER)


def _since(age: float | None) -> str:
    return "ever" if age is None else f"for {age:.0f} s"
