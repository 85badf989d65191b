"""``manage.py doctor``, for ``call_command`` and ``manage.py help``.

On the command line ``manage.py`` calls ``llamactl.doctor`` itself, before Django's settings are
loaded, so that a broken configuration or data directory is diagnosed too.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from llamactl.doctor import command


class Command(BaseCommand):
    help = command.DESCRIPTION
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the findings as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if code := command.run(as_json=options["json"]):
            sys.exit(code)
