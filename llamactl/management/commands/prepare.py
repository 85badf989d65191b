"""``manage.py prepare``: the part of ``run --only web`` that comes before the web process.

gunicorn's master process calls this command, because it must not import the application itself:
workers forked after a reload would get the old code.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseProblem

from llamactl.config import current
from llamactl.core.locks import Locked
from llamactl.server.prepare import prepare_service


class Command(BaseCommand):
    help = (
        "Creates the data directory, the database tables, the admin account and the management key,"
        " as 'run --only web' does before it starts the web process. For web servers that 'run'"
        " does not start."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        config = current()
        try:
            prepare_service(config, for_web=True, print_line=self.stdout.write)
        except Locked as error:
            raise CommandError(str(error)) from error
        except DatabaseProblem as error:
            raise CommandError(f"the database can't be used: {error}".strip()) from error
        except OSError as error:
            raise CommandError(
                f"{error.filename or config.data_dir}: {error.strerror}", returncode=2
            ) from error
