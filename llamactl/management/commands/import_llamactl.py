"""``manage.py import_llamactl``: instances and keys of the Go llamactl."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from llamactl.config import current
from llamactl.importer.go_database import UnreadableGoDatabase, read
from llamactl.importer.run import import_all, source_of
from llamactl.management.readable_errors import readable_errors
from llamactl.server.prepare import prepare_service


class Command(BaseCommand):
    help = (
        "Imports the instances and inference keys of the Go llamactl from its SQLite database,"
        " which is only read. Stop the Go program first. The command may be repeated: what is"
        " already here stays as it is. The keys themselves go on working. Exit code 1 if an"
        " instance or key could not be imported."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "database",
            nargs="?",
            type=Path,
            help="the Go program's database; default: llamactl.db in the data directory",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="show what would be imported; change nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        config = current()
        path: Path | None = options["database"] or source_of(config)
        if path is None:
            raise CommandError(
                f"there is no database of the Go llamactl in {config.database.path.parent}; name"
                " its file: manage.py import_llamactl /path/to/llamactl.db"
            )
        try:
            with readable_errors(config, UnreadableGoDatabase):
                source = read(path)
                prepare_service(config, for_web=False, print_line=self.stdout.write)
                if options["dry_run"]:
                    logging.disable(logging.INFO)  # "created …", of rows that don't stay
                report = import_all(source, is_dry_run=options["dry_run"])
        finally:
            logging.disable(logging.NOTSET)
        self.stdout.write(f"From {path}:")
        for entry in report.entries:
            for line in entry.lines():
                self.stdout.write(f"  {line}")
        end = "; nothing was changed (dry run)" if options["dry_run"] else ""
        self.stdout.write(f"{report.summary()}{end}")
        if report.has_refusals:
            sys.exit(1)
