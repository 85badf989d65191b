"""``manage.py check_config [FILE]``: is a configuration good, and who set which value?

``manage.py`` calls ``explain.main`` before Django's settings are loaded, so that a broken
configuration can be explained too; this command is for ``call_command`` and ``manage.py help``.
"""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from instances.backends import config_sections
from llamactl.config import explain


class Command(BaseCommand):
    """Hands over to ``explain.main``."""

    help = "Check the configuration and show each value with the place that set it."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the file to check."""
        parser.add_argument(
            "file", nargs="?", help="check this file instead of the one that is in use"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Exit with 2 when something is wrong."""
        file = options["file"]
        if code := explain.main([] if file is None else [file], config_sections()):
            sys.exit(code)
