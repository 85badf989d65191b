"""``manage.py check_config [FILE]``, for ``call_command`` and ``manage.py help``.

On the command line ``manage.py`` calls ``explain.main`` itself, before Django's settings are
loaded, so that a broken configuration is explained too.
"""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from instances.backends.registry import config_sections
from llamactl.config import explain


class Command(BaseCommand):
    help = explain.DESCRIPTION
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", help=explain.FILE_HELP)

    def handle(self, *args: Any, **options: Any) -> None:
        """Exit with 2 if the configuration has an error."""
        file = options["file"]
        if code := explain.main([] if file is None else [file], config_sections()):
            sys.exit(code)
