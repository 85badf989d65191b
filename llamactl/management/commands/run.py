"""``manage.py run``: broker, worker and web in one process tree, in the foreground."""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from llamactl.config import AppConfig, current
from llamactl.config.announcement import announce_warnings
from llamactl.core.broker_url import BrokerError
from llamactl.core.locks import Locked, acquire
from llamactl.importer.run import notice
from llamactl.management.readable_errors import readable_errors
from llamactl.server.banner import banner, exposure_warnings
from llamactl.server.bootstrap import ensure_admin, make_directories, migrate
from llamactl.server.child import CannotStart
from llamactl.server.demo import DemoUnavailable, load_demo_command, unpack_model
from llamactl.server.foreground import Plan, replace_process
from llamactl.server.services import MARGIN_SECONDS, stages, worker_grace_seconds
from llamactl.server.single_service import SERVICES, run_single
from llamactl.server.sockets import AddressUnusable, close_all, listen_for_web


class Command(BaseCommand):
    help = (
        "Prepares the database and starts broker, worker and web in the foreground. Ctrl-C stops"
        " them in order; a second Ctrl-C kills them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--demo", action="store_true", help="load a small model and print example requests"
        )
        parser.add_argument(
            "--keep-backends",
            action="store_true",
            help="leave backends running after the stop; the next start adopts them",
        )
        parser.add_argument(
            "--only",
            choices=SERVICES,
            help="start this service alone, for a service manager (see docs/deploy); whether"
            " backends are left running is set by instances.keep_backends",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        config = current()
        began = time.monotonic()
        announce_warnings(config, self._print_warning)
        expected = (AddressUnusable, BrokerError, CannotStart, DemoUnavailable)
        try:
            with readable_errors(config, *expected), ExitStack() as resources:
                if options["only"]:
                    run_single(options["only"], config, print_line=self._print_line)
                else:
                    replace_process(self._prepared(config, resources, began, options))
        except KeyboardInterrupt:
            sys.exit(0)  # nothing runs yet: a clean stop, of which make need not report an error

    def _prepared(
        self, config: AppConfig, resources: ExitStack, began: float, options: dict[str, Any]
    ) -> Plan:
        """Lock, listen, migrate and unpack; return the plan of the processes to start.

        ``resources`` are released if a later step fails.
        """
        make_directories(config)
        run_lock, children_lock = self._lock_data_dir(config, resources)
        listeners = listen_for_web(config.server, print_warning=self._print_warning)
        resources.callback(close_all, listeners)
        for line in exposure_warnings(config):
            self.stderr.write(self.style.ERROR(line))
        migrate(self._print_line)
        account = ensure_admin(config)
        found = notice(config)
        connections.close_all()
        model = unpack_model(config, self._print_line) if options["demo"] else None
        keep_backends: bool = options["keep_backends"]
        return Plan(
            stages(config, listeners, keep_backends=keep_backends),
            locks=[run_lock],
            inherited=[children_lock],
            began=began,
            banner=banner(config, account, keep_backends=keep_backends, found=found),
            demo=() if model is None else load_demo_command(model),
            keep_backends=keep_backends,
        )

    def _lock_data_dir(self, config: AppConfig, resources: ExitStack) -> tuple[int, int]:
        """Lock the data directory; returns the descriptors of the two locks.

        ``run.lock`` is held by this process alone and shows that llamactl runs. ``processes.lock``
        is inherited by every child and shows that children of a killed run still end. They end by
        themselves, and get as much time for it as in an orderly stop.
        """
        try:
            lock = acquire(config.data_dir / "run.lock")
        except Locked as error:
            raise CommandError(
                f"llamactl already runs on {config.data_dir} (process {error.pid or 'unknown'});"
                " stop it first, or set LLAMACTL_DATA_DIRECTORY to another directory"
            ) from None
        resources.callback(os.close, lock)
        path = config.data_dir / "processes.lock"
        try:
            children_lock = acquire(
                path,
                wait_seconds=worker_grace_seconds(config) + MARGIN_SECONDS,
                on_wait=lambda: self._print_line(
                    "waiting for the processes of a killed run to end …"
                ),
            )
        except Locked:
            raise CommandError(
                f"processes of a killed run are still running; end them first: {_holders(path)}"
            ) from None
        resources.callback(os.close, children_lock)
        return lock, children_lock

    def _print_warning(self, line: str) -> None:
        self.stderr.write(self.style.WARNING(line))

    def _print_line(self, line: str) -> None:
        # The orderly stop must not fail when the terminal has been closed.
        with suppress(OSError):
            self.stdout.write(line)
            self.stdout.flush()


def _holders(path: Path) -> str:
    """List the processes that have the file open, for the operator."""
    found = []
    for process in psutil.process_iter(["pid", "name"]):
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(
                Path(file.path) == path for file in process.open_files()
            ):
                found.append(f"{process.pid} ({process.name()})")
    return ", ".join(found) or "none that this user may inspect"
