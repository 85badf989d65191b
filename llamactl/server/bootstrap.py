"""What must be in place before the first process: directories, tables, the admin's account."""

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
    """How the operator gets into the admin."""

    username: str
    password: str | None
    """None where it is not the generated one: changed, or another account altogether."""


def make_directories(config: AppConfig) -> None:
    """The data directory, for its owner alone, and that of the database. Raises OSError."""
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if config.database.url is None:
        path = config.database.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its sidecars the mode of the database, and both hold secrets.
        for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if file.exists():
                file.chmod(0o600)


def migrate(say: Callable[[str], None]) -> None:
    """Bring the tables up to date, and say so if there is anything to do.

    Raises django.db.Error where the database can't be reached.
    """
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        began = time.monotonic()
        call_command("migrate", interactive=False, verbosity=0)
        steps = f"{len(plan)} migration{'s' if len(plan) > 1 else ''}"
        say(f"database ready ({steps}, {time.monotonic() - began:.1f} s)")


def ensure_admin(config: AppConfig) -> AdminAccount:
    """The superuser ``admin``, made with a generated password where there is no superuser yet.

    An operator who deleted ``admin`` for an account of their own doesn't get it back.
    """
    user = User.objects.filter(username=ADMIN_NAME).first()
    if user is None and (other := User.objects.filter(is_superuser=True).first()) is not None:
        return AdminAccount(other.username, None)
    password = read_or_create_secret(password_path(config), lambda: secrets.token_urlsafe(12))
    if user is None:
        User.objects.create_superuser(ADMIN_NAME, password=password)
        return AdminAccount(ADMIN_NAME, password)
    fits = check_password(password, user.password)
    return AdminAccount(ADMIN_NAME, password if fits else None)


def password_path(config: AppConfig) -> Path:
    """The file with the generated password of ``admin``."""
    return config.data_dir / "admin_password"
