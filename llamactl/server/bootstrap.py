"""Preparation of a start: data directory, database migrations, admin account."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.contrib.auth.hashers import check_password
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from llamactl.config import AppConfig
from llamactl.core.secret_files import read_or_create_secret

ADMIN_NAME = "admin"


@dataclass(frozen=True)
class AdminAccount:
    """Credentials of the operator for the admin."""

    username: str
    password: str | None
    """The generated password; None if it was changed, or for another account."""
    is_new: bool = False
    """Whether this start created the account."""


def make_directories(config: AppConfig) -> None:
    """Create the data directory and the database's directory, mode 0700. Raises OSError."""
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if config.database.url is None:
        path = config.database.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database; all of them hold secrets.
        for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if file.exists():
                file.chmod(0o600)


def migrate(print_line: Callable[[str], None]) -> None:
    """Apply outstanding migrations, and print a line if there were any.

    Raises django.db.Error if the database can't be reached.
    """
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        began = time.monotonic()
        call_command("migrate", interactive=False, verbosity=0)
        steps = f"{len(plan)} migration{'s' if len(plan) > 1 else ''}"
        print_line(f"database ready ({steps}, {time.monotonic() - began:.1f} s)")


def ensure_admin(config: AppConfig) -> AdminAccount:
    """Create the superuser ``admin`` with a generated password, if there is no superuser yet.

    An operator's own superuser replaces ``admin`` for good: a deleted ``admin`` stays deleted.
    """
    user = User.objects.filter(username=ADMIN_NAME).first()
    if user is None and (other := User.objects.filter(is_superuser=True).first()) is not None:
        return AdminAccount(other.username, None)
    password = read_or_create_secret(password_path(config), lambda: secrets.token_urlsafe(12))
    if user is None:
        User.objects.create_superuser(ADMIN_NAME, password=password)
        return AdminAccount(ADMIN_NAME, password, is_new=True)
    is_unchanged = check_password(password, user.password)
    return AdminAccount(ADMIN_NAME, password if is_unchanged else None)


def password_path(config: AppConfig) -> Path:
    """Path of the file with the generated password of ``admin``."""
    return config.data_dir / "admin_password"
