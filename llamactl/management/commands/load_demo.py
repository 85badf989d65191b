"""``manage.py load_demo``: the demo instance, created and started, with example requests."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from llamactl.config import current
from llamactl.server.banner import example_requests
from llamactl.server.demo import EXAMPLE_PROMPT, INSTANCE_NAME, start_demo


class Command(BaseCommand):
    help = (
        "Creates and starts the demo instance on a llamactl that runs. 'run --demo' calls it, in a"
        " process of its own, because the foreground process has no Django."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", type=Path, help="path of the model file")

    def handle(self, *args: Any, **options: Any) -> None:
        if start_demo(options["model"], print_line=self._print_line, wait=time.sleep):
            text = example_requests(current(), model=INSTANCE_NAME, prompt=EXAMPLE_PROMPT)
            self._print_line(f"\n{text}")

    def _print_line(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
