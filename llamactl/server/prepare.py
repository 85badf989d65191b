"""Preparation of the worker's or the web's start where a service manager starts each alone."""

from __future__ import annotations

import os
from collections.abc import Callable

from django.db import connections

from keys.secrets import management_keys
from llamactl.config import AppConfig
from llamactl.core.locks import acquire
from llamactl.importer.run import notice
from llamactl.server.bootstrap import ensure_admin, make_directories, migrate

MIGRATION_SECONDS = 300.0
"""How long one service waits for another that migrates the database."""


def prepare_service(config: AppConfig, *, for_web: bool, print_line: Callable[[str], None]) -> None:
    """Create the directories and migrate the database; for the web, create its credentials too.

    These are the admin account and the management key.

    For the web, the notice of a Go database is printed too, if the database is not imported yet.

    Raises Locked, OSError or a database error.
    """
    make_directories(config)
    # Worker and web may start at the same time, on one database.
    lock = acquire(config.data_dir / "migrate.lock", wait_seconds=MIGRATION_SECONDS)
    try:
        migrate(print_line)
        if for_web:
            ensure_admin(config)
            management_keys(config)
            if found := notice(config):
                print_line(found)
    finally:
        os.close(lock)
        connections.close_all()
