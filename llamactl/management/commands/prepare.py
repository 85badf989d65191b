"""``manage.py prepare``: the part of ``run --only web`` that comes before the web process.

gunicorn's master process calls this command, because it must not import the application itself:
workers forked after a reload would get the old code.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from llamactl.config import current
from llamactl.management.readable_errors import readable_errors
from llamactl.server.prepare import prepare_service


class Command(BaseCommand):
    help = (
        "Creates the data directory, the database tables, the admin account and the management key,"
        " as 'run --only web' does before it starts the web process. For web servers that 'run'"
        " does not start."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        config = current()
        with readable_errors(config):
            prepare_service(config, for_web=True, print_line=self.stdout.write)
