"""``manage.py run``: broker, worker and web together, in the foreground."""

from __future__ import annotations

import os
import socket
import sys
import time
from argparse import ArgumentParser
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseProblem
from django.db import connections

from llamactl.config import AppConfig, current
from llamactl.core.broker_url import BrokerError
from llamactl.core.locks import Locked, acquire
from llamactl.server.banner import banner, examples, exposure_warnings
from llamactl.server.bootstrap import AdminAccount, ensure_admin, make_directories, migrate
from llamactl.server.demo import (
    EXAMPLE_PROMPT,
    INSTANCE_NAME,
    DemoUnavailable,
    start_demo,
    unpack_model,
)
from llamactl.server.process_group import CannotStart, ProcessGroup, Stopped
from llamactl.server.services import MARGIN_SECONDS, stages, worker_grace_seconds
from llamactl.server.single_service import SERVICES, run_single
from llamactl.server.sockets import AddressUnusable, close_all, listen


class Command(BaseCommand):
    help = (
        "Prepares the database and starts broker, worker and web in the foreground. Ctrl-C stops"
        " them in order; a second Ctrl-C kills."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--demo", action="store_true", help="load a small model and show how to ask it"
        )
        parser.add_argument(
            "--keep-backends",
            action="store_true",
            help="leave backends running at the end; the next start takes them over",
        )
        parser.add_argument(
            "--only",
            choices=SERVICES,
            help="be this one service, for a service manager (see docs/deploy); backends are left"
            " running as instances.keep_backends says",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        config = current()
        began = time.monotonic()
        try:
            if options["only"]:
                run_single(options["only"], config, say=self._say)
                return
            with ExitStack() as resources:
                make_directories(config)
                children_lock = self._claim(config, resources)
                listeners = listen(config.server.host, config.server.port)
                resources.callback(close_all, listeners)
                for line in exposure_warnings(config):
                    self.stderr.write(self.style.ERROR(line))
                migrate(self._say)
                account = ensure_admin(config)
                connections.close_all()
                model = unpack_model(config, self._say) if options["demo"] else None
                self._run(
                    config,
                    listeners,
                    children_lock,
                    account=account,
                    model=model,
                    keep_backends=options["keep_backends"],
                    began=began,
                )
        except (AddressUnusable, BrokerError, CannotStart, DemoUnavailable, Locked) as error:
            raise CommandError(str(error)) from error
        except DatabaseProblem as error:
            raise CommandError(f"the database can't be used: {error}".strip()) from error
        except OSError as error:
            raise CommandError(f"{error.filename or config.data_dir}: {error.strerror}") from error
        except KeyboardInterrupt:
            sys.exit(130)

    def _run(
        self,
        config: AppConfig,
        listeners: list[socket.socket],
        children_lock: int,
        *,
        account: AdminAccount,
        model: Path | None,
        keep_backends: bool,
        began: float,
    ) -> None:
        """Start everything and keep it running; leaves by SystemExit."""
        group = ProcessGroup(
            stages(config, listeners, keep_backends=keep_backends),
            say=self._say,
            inherited=[children_lock],
        )
        try:
            with group:
                try:
                    group.start()
                    seconds = time.monotonic() - began
                    self._say(
                        banner(config, account, start_seconds=seconds, keep_backends=keep_backends)
                    )
                    if model is not None and start_demo(model, say=self._say, wait=group.watch):
                        text = examples(config, model=INSTANCE_NAME, prompt=EXAMPLE_PROMPT)
                        self._say(f"\n{text}")
                    connections.close_all()
                    group.watch()
                except Stopped as reason:
                    self._say(f"stopping: {reason}; Ctrl-C again kills")
                    raise
        except Stopped as reason:
            if "worker" in group.killed and not keep_backends:
                self._say(
                    "the worker was killed: backends may still run; the next start takes them over"
                )
            sys.exit(reason.exit_code)

    def _claim(self, config: AppConfig, resources: ExitStack) -> int:
        """Make sure that nobody else runs here; returns the lock that our children will share.

        Two locks, for two questions. ``run.lock`` is held by us alone: does another instance run?
        ``processes.lock`` is inherited by every child: have those of a run that was killed ended?
        They end by themselves, and get as long for it as in an orderly stop.
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
                on_wait=lambda: self._say("waiting for the processes of a killed run to end …"),
            )
        except Locked:
            raise CommandError(
                "processes of a run that was killed are still there; end them first:"
                f" {_holders(path)}"
            ) from None
        resources.callback(os.close, children_lock)
        return children_lock

    def _say(self, line: str) -> None:
        # A terminal that was closed must not keep us from stopping in order.
        with suppress(OSError):
            self.stdout.write(line)
            self.stdout.flush()


def _holders(path: Path) -> str:
    """The processes that have the file open, for a person to look at."""
    found = []
    for process in psutil.process_iter(["pid", "name"]):
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(
                Path(file.path) == path for file in process.open_files()
            ):
                found.append(f"{process.pid} ({process.name()})")
    return ", ".join(found) or "none that we may look at"
