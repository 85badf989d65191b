"""Do worker and web do their work?"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass

from llamactl.config import AppConfig
from llamactl.doctor.findings import Diagnosis, note, ok, problem, warning
from llamactl.server.sockets import is_loopback, local_host

PATIENCE_SECONDS = 3.0
STALE_AFTER_SECONDS = 10.0


@dataclass(frozen=True)
class WebFacts:
    host: str
    port: int
    is_listening: bool
    is_ours: bool = False
    status: int = 0
    error: str = ""
    open_sides: tuple[str, ...] = ()
    """The settings that let anyone in."""


def look_at_web(config: AppConfig) -> WebFacts:
    host, port = config.server.host, config.server.port
    auth = config.auth
    open_sides = tuple(
        f"auth.{name}"
        for name in ("require_management_auth", "require_inference_auth")
        if not getattr(auth, name)
    )
    probe = http.client.HTTPConnection(local_host(host).strip("[]"), port, timeout=PATIENCE_SECONDS)
    try:
        probe.request("GET", "/healthz")
        answer = probe.getresponse()
        body = answer.read(200)
    except ConnectionRefusedError:
        return WebFacts(host, port, is_listening=False, open_sides=open_sides)
    except (OSError, http.client.HTTPException) as error:
        what = str(error) or type(error).__name__
        return WebFacts(host, port, is_listening=True, error=what, open_sides=open_sides)
    finally:
        probe.close()
    try:
        is_ours = json.loads(body) == {"status": "ok"}
    except ValueError:
        is_ours = False
    return WebFacts(host, port, True, is_ours, answer.status, open_sides=open_sides)


def judge_web(facts: WebFacts, *, has_run_before: bool) -> Iterator[Diagnosis]:
    where = f"{facts.host}:{facts.port}"
    if not facts.is_listening:
        text = f"nobody listens on {where}"
        if has_run_before:
            yield problem("web", text, "start llamactl ('make run', or the service llamactl-web)")
        else:
            yield ok("web", f"{text}, so the port is free")
    elif facts.error:
        yield problem("web", f"{where} does not answer: {facts.error}", "restart llamactl-web")
    elif not facts.is_ours:
        yield problem(
            "web",
            f"another program answers on {where} (HTTP {facts.status})",
            "end it, or set LLAMACTL_PORT or server.port",
        )
    else:
        yield ok("web", f"answers on {where}")
    if facts.open_sides and not is_loopback(facts.host):
        yield warning(
            "web",
            f"anyone who reaches {where} gets in: {' and '.join(facts.open_sides)} false",
            "set them to true, or listen on 127.0.0.1",
        )


@dataclass(frozen=True)
class WorkerFacts:
    node: str
    age_seconds: float | None
    """Since its last heartbeat; ``None``: it never had one."""
    is_local: bool = True
    is_drained: bool = False
    lock_holder: int | None = None
    """The process that has the node's lock."""
    is_known: bool = True
    """Whether its row could be read."""


def judge_worker(facts: WorkerFacts) -> Iterator[Diagnosis]:
    age = facts.age_seconds
    is_alive = age is not None and age < STALE_AFTER_SECONDS
    if is_alive:
        yield ok("worker", f"{facts.node} is alive")
    elif not facts.is_known and facts.lock_holder is not None:
        yield note(
            "worker",
            f"process {facts.lock_holder} has the node {facts.node}; its heartbeat can't be read",
        )
    elif not facts.is_known:
        yield problem(
            "worker",
            f"no process has the node {facts.node}: nothing is started or stopped",
            "start llamactl ('make run', or the service llamactl-worker)",
        )
    elif not facts.is_local:
        yield warning(
            "worker",
            f"{facts.node} has sent no heartbeat {_since(age)}",
            "look at its host; if it is gone for good, delete the node in the admin",
        )
    elif facts.lock_holder is not None:
        yield problem(
            "worker",
            f"{facts.node} has sent no heartbeat {_since(age)}, yet process {facts.lock_holder}"
            " has the node",
            "is the database writable? If that process hangs, end it: the backends run on",
        )
    else:
        yield problem(
            "worker",
            f"{facts.node} has sent no heartbeat {_since(age)}: nothing is started or stopped",
            "start llamactl ('make run', or the service llamactl-worker)",
        )
    if facts.is_drained:
        yield note(
            "worker",
            f"{facts.node} is drained and starts nothing",
            f"when the maintenance is over: manage.py drain --node {facts.node} --resume",
        )


def _since(age: float | None) -> str:
    return "ever" if age is None else f"for {age:.0f} s"
