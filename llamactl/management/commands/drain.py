"""``manage.py drain``: empty a node for maintenance, or put it back to work."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseProblem
from django.utils import timezone

from instances import node_drain
from llamactl.config import AppConfig, current
from llamactl.core.errors import LlamactlError
from nodes.models import Node

POLL_SECONDS = 0.3
MARGIN_SECONDS = 10.0


class Command(BaseCommand):
    help = (
        "Stops every instance of a node in order and lets none start, neither by hand nor on"
        " demand, until --resume. Exit code 1: not everything stopped in time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--node", help="the node's name; without it, this host's")
        parser.add_argument(
            "--wait",
            type=float,
            metavar="SECONDS",
            help="how long to wait until everything has stopped; without it, as long as an orderly"
            " stop may take (instances.drain_timeout and stop_timeout); 0 does not wait",
        )
        parser.add_argument(
            "--resume",
            action="store_true",
            help="let the node start instances again, and start those that the drain stopped",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        config = current()
        name = options["node"] or config.local_node
        try:
            if options["resume"]:
                started = node_drain.resume(name)
                self.stdout.write(f"{name} is back; asked to start: {_listed(started)}")
                self._warn_if_gone(name)
                return
            wait_seconds = options["wait"]
            if wait_seconds is None:
                wait_seconds = patience_seconds(config)
            self._drain(name, wait_seconds)
        except LlamactlError as error:
            raise CommandError(error.details) from error
        except DatabaseProblem as error:
            raise CommandError(f"the database can't be used: {error}".strip()) from error

    def _drain(self, name: str, wait_seconds: float) -> None:
        stopping = node_drain.drain(name)
        self.stdout.write(f"{name} starts nothing any more; asked to stop: {_listed(stopping)}")
        self._warn_if_gone(name)
        deadline = time.monotonic() + wait_seconds
        said: list[str] = []
        while left := node_drain.unfinished(name):
            if left != said:
                self.stdout.write(f"waiting for {_listed(left)}")
                self.stdout.flush()
                said = left
            if time.monotonic() >= deadline:
                raise CommandError(
                    f"not stopped within {wait_seconds:g} s: {_listed(left)}; the instances' logs"
                    " and the worker's may say why. Run drain again to wait on"
                )
            time.sleep(POLL_SECONDS)
        self.stdout.write(
            f"{name} is drained; 'manage.py drain --node {name} --resume' puts it back to work"
        )

    def _warn_if_gone(self, name: str) -> None:
        node = Node.objects.get(name=name)
        if not node.is_alive(timezone.now()):
            self.stderr.write(
                self.style.WARNING(
                    f"the worker of {name} has sent no heartbeat lately; what is asked happens"
                    " once it is back"
                )
            )


def patience_seconds(config: AppConfig) -> float:
    """How long an orderly stop may take."""
    return config.instances.drain_timeout + 3 * config.instances.stop_timeout + MARGIN_SECONDS


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nothing"
