"""``manage.py drain``: drain a node for maintenance, or resume it."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from instances import node_drain
from llamactl.config import AppConfig, current
from llamactl.management.readable_errors import readable_errors
from nodes.models import Node

POLL_SECONDS = 0.3
MARGIN_SECONDS = 10.0


class Command(BaseCommand):
    help = (
        "Drains a node: stops all its instances in order and starts none, neither by request nor on"
        " demand, until --resume. Exit code 1 if an instance has not stopped in time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--node", help="name of the node (default: this host's node)")
        parser.add_argument(
            "--wait",
            type=float,
            metavar="SECONDS",
            help="how long to wait for the instances to stop (default: as long as an orderly stop"
            " may take, by instances.drain_timeout and stop_timeout); 0 does not wait",
        )
        parser.add_argument(
            "--resume",
            action="store_true",
            help="end the drain, and start the instances that it stopped",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        config = current()
        name = options["node"] or config.local_node
        with readable_errors(config):
            if options["resume"]:
                started = node_drain.resume(name)
                self.stdout.write(f"{name} is resumed; requested to start: {_listed(started)}")
                self._warn_without_worker(name)
                return
            wait_seconds = options["wait"]
            if wait_seconds is None:
                wait_seconds = orderly_stop_seconds(config)
            self._drain(name, wait_seconds)

    def _drain(self, name: str, wait_seconds: float) -> None:
        stopping = node_drain.drain(name)
        self.stdout.write(f"{name} is draining; requested to stop: {_listed(stopping)}")
        self._warn_without_worker(name)
        deadline = time.monotonic() + wait_seconds
        printed: list[str] = []
        while left := node_drain.unfinished(name):
            if left != printed:
                self.stdout.write(f"waiting for {_listed(left)}")
                self.stdout.flush()
                printed = left
            if time.monotonic() >= deadline:
                raise CommandError(
                    f"not stopped within {wait_seconds:g} s: {_listed(left)}; see the logs of these"
                    " instances and of the worker. Run drain again to wait longer"
                )
            time.sleep(POLL_SECONDS)
        self.stdout.write(
            f"{name} is drained; end the drain with 'manage.py drain --node {name} --resume'"
        )

    def _warn_without_worker(self, name: str) -> None:
        node = Node.objects.get(name=name)
        if not node.is_alive(timezone.now()):
            self.stderr.write(
                self.style.WARNING(
                    f"the worker of {name} has sent no recent heartbeat; it carries out the request"
                    " once it runs again"
                )
            )


def orderly_stop_seconds(config: AppConfig) -> float:
    """How long an orderly stop of all instances may take."""
    return config.instances.drain_timeout + 3 * config.instances.stop_timeout + MARGIN_SECONDS


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nothing"
