"""``manage.py doctor``: what is wrong here, and how is it mended?

``manage.py`` calls ``llamactl.doctor`` before Django's settings are loaded, so that a broken
configuration or data directory is examined too; this is for ``call_command`` and ``manage.py
help``.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from llamactl.doctor import command


class Command(BaseCommand):
    help = "Look at everything that llamactl needs; say what is wrong and how to mend it."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        if code := command.run(as_json=options["json"]):
            sys.exit(code)
