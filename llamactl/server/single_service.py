"""One of llamactl's services, started alone under a service manager such as systemd.

The service replaces this process (exec), so the service manager's signals and exit codes are the
service's own. Several web processes have the foreground process for a parent, which holds their
listening sockets.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack

from llamactl.config import AppConfig
from llamactl.server.bootstrap import make_directories
from llamactl.server.child import CannotStart, ProcessSpec
from llamactl.server.foreground import Plan, replace_process
from llamactl.server.prepare import prepare_service
from llamactl.server.services import stages
from llamactl.server.sockets import close_all, listen_for_web

SERVICES = ("broker", "worker", "web")


def run_single(service: str, config: AppConfig, *, print_line: Callable[[str], None]) -> None:
    """Prepare a service's start, and replace this process by the service.

    Raises CannotStart, AddressUnusable, BrokerError, Locked, OSError or a database error.
    """
    if service == "broker" and config.redis.url is not None:
        raise CannotStart("redis.url names a broker, so there is no embedded broker to start")
    make_directories(config)
    with ExitStack() as resources:
        listeners = []
        if service == "web":
            listeners = listen_for_web(config.server, print_warning=print_line)
            resources.callback(close_all, listeners)
        if service != "broker":
            prepare_service(config, for_web=service == "web", print_line=print_line)
        every = stages(config, listeners, keep_backends=config.instances.keep_backends)
        specs = [spec for stage in every for spec in stage if spec.name.split()[0] == service]
        if len(specs) == 1:
            _exec(specs[0])
        else:
            replace_process(Plan([specs]))


def _exec(spec: ProcessSpec) -> None:
    descriptors = list(spec.pass_fds)
    if spec.prepare is not None:
        descriptors.append(spec.prepare())
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores both, and exec inherits that
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(spec.argv[0], list(spec.argv), {**os.environ, **spec.environment})  # noqa: S606
