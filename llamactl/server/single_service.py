"""How is one of the services started alone, under a service manager that does the rest?

The service takes this process's place, so that the service manager's signals and exit codes are
its own; only several web processes keep a parent, which holds their sockets.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from django.db import connections

from llamactl.config import AppConfig
from llamactl.core.locks import acquire
from llamactl.server.bootstrap import ensure_admin, make_directories, migrate
from llamactl.server.process_group import CannotStart, ProcessGroup, ProcessSpec, Stopped
from llamactl.server.services import stages
from llamactl.server.sockets import close_all, listen

SERVICES = ("broker", "worker", "web")
MIGRATION_SECONDS = 300.0
"""How long one service may wait for another that migrates."""


def run_single(service: str, config: AppConfig, *, say: Callable[[str], None]) -> None:
    """Prepare what the service needs, and become it.

    Raises CannotStart, AddressUnusable, BrokerError, Locked, OSError or a database error.
    """
    if service == "broker" and config.redis.url is not None:
        raise CannotStart("redis.url names a broker, so there is none of our own to start")
    make_directories(config)
    with ExitStack() as resources:
        listeners = []
        if service == "web":
            listeners = listen(config.server.host, config.server.port)
            resources.callback(close_all, listeners)
        if service != "broker":
            # Worker and web may come up at the same time, with one database.
            lock = acquire(config.data_dir / "migrate.lock", wait_seconds=MIGRATION_SECONDS)
            migrate(say)
            os.close(lock)
        if service == "web":
            ensure_admin(config)
        connections.close_all()
        every = stages(config, listeners, keep_backends=config.instances.keep_backends)
        specs = [spec for stage in every for spec in stage if spec.name.split()[0] == service]
        if len(specs) == 1:
            _become(specs[0])
        else:
            _run_group(specs, say)


def _become(spec: ProcessSpec) -> None:
    descriptors = list(spec.pass_fds)
    if spec.prepare is not None:
        descriptors.append(spec.prepare())
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and an exec keeps so
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(spec.argv[0], list(spec.argv), {**os.environ, **spec.environment})  # noqa: S606


def _run_group(specs: Sequence[ProcessSpec], say: Callable[[str], None]) -> None:
    """Leaves by SystemExit; having been told to stop is a success."""
    told_to_stop = {128 + signal.SIGINT, 128 + signal.SIGTERM}
    try:
        with ProcessGroup([specs], say=say) as group:
            group.start()
            group.watch()
    except Stopped as reason:
        sys.exit(0 if reason.exit_code in told_to_stop else reason.exit_code)
