"""Which processes make up llamactl on one host, and how is each seen to work?"""

from __future__ import annotations

import http.client
import os
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connection

from llamactl.celery import node_queue
from llamactl.config import AppConfig
from llamactl.core.broker_url import BrokerError
from llamactl.server.embedded_broker import GRACE_SECONDS as BROKER_GRACE_SECONDS
from llamactl.server.embedded_broker import READY_SECONDS, EmbeddedBroker
from llamactl.server.process_group import CannotStart, ProcessSpec
from llamactl.server.sockets import close_all, local_host
from llamactl.server.web.__main__ import GRACE_SECONDS as WEB_GRACE_SECONDS
from nodes.models import Node

MARGIN_SECONDS = 5.0
"""What a process may take beyond the waits that it is configured to make."""

PROBE_SECONDS = 0.5


def stages(
    config: AppConfig, listeners: Sequence[socket.socket], *, keep_backends: bool
) -> list[list[ProcessSpec]]:
    """Broker (unless ``redis.url`` names one), then worker, then the web processes."""
    web_processes = config.server.web_processes
    web = [
        _web(config, listeners, name="web" if web_processes == 1 else f"web {number}")
        for number in range(1, web_processes + 1)
    ]
    below = [] if config.redis.url is not None else [[_broker(EmbeddedBroker(config))]]
    return [*below, [_worker(config, keep_backends=keep_backends)], web]


def worker_grace_seconds(config: AppConfig) -> float:
    """How long a worker may take to end: it drains its backends, then signals thrice."""
    waits = config.instances.drain_timeout + 3 * config.instances.stop_timeout
    return waits + MARGIN_SECONDS


def _broker(broker: EmbeddedBroker) -> ProcessSpec:
    def prepare() -> int:
        try:
            return broker.prepare()
        except BrokerError as error:
            raise CannotStart(str(error)) from error

    return ProcessSpec(
        name="broker",
        argv=broker.argv,
        is_ready=lambda started: broker.is_ready(),
        grace_seconds=BROKER_GRACE_SECONDS,
        ready_seconds=READY_SECONDS,
        log_path=broker.log_path,
        prepare=prepare,
    )


def _worker(config: AppConfig, *, keep_backends: bool) -> ProcessSpec:
    node = config.local_node
    argv = [sys.executable, "-m", "celery", "-A", "llamactl", "--quiet", "worker"]
    argv += ["-Q", node_queue(node), "-n", f"{node}@%h", "-l", "WARNING"]
    argv += ["--pool", "threads", "-c", "4", "--without-gossip", "--without-mingle"]
    return ProcessSpec(
        name="worker",
        argv=argv,
        is_ready=partial(_has_heartbeat, node),
        grace_seconds=worker_grace_seconds(config),
        environment={
            **_python_path(),
            "LLAMACTL_KEEP_BACKENDS": "true" if keep_backends else "false",
            # Celery warns root of pickle, which we don't accept (CELERY_ACCEPT_CONTENT).
            "PYTHONWARNINGS": ",".join(
                filter(
                    None,
                    [
                        os.environ.get("PYTHONWARNINGS"),
                        "ignore:You're running the worker with superuser privileges",
                    ],
                )
            ),
        },
    )


def _web(config: AppConfig, listeners: Sequence[socket.socket], *, name: str) -> ProcessSpec:
    descriptors = [listener.fileno() for listener in listeners]
    return ProcessSpec(
        name=name,
        argv=[sys.executable, "-m", "llamactl.server.web", *map(str, descriptors)],
        is_ready=lambda started: _answers(config.server.host, config.server.port),
        grace_seconds=WEB_GRACE_SECONDS + MARGIN_SECONDS,
        environment=_python_path(),
        pass_fds=descriptors,
        # While we hold the sockets open, new clients would queue for a server that never comes.
        retire=lambda: close_all(listeners),
    )


def _python_path() -> dict[str, str]:
    """So that the children find our packages from whichever directory we are started in."""
    base = str(Path(settings.BASE_DIR))
    return {"PYTHONPATH": os.pathsep.join(filter(None, [base, os.environ.get("PYTHONPATH")]))}


def _has_heartbeat(node: str, started: float) -> bool:
    """Whether the node's supervisor has written since ``started`` (unix time)."""
    since = datetime.fromtimestamp(started, tz=UTC)
    try:
        return Node.objects.filter(name=node, heartbeat_at__gte=since).exists()
    except DatabaseError:
        return False
    finally:
        connection.close()


def _answers(host: str, port: int) -> bool:
    """Whether GET /healthz answers 200; never waits longer than ``PROBE_SECONDS``."""
    probe = http.client.HTTPConnection(local_host(host).strip("[]"), port, timeout=PROBE_SECONDS)
    try:
        probe.request("GET", "/healthz")
        return probe.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        probe.close()
