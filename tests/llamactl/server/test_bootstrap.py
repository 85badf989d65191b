"""Preparation of a start: directories, migrations, admin account."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from llamactl.config import AppConfig
from llamactl.server.bootstrap import (
    ADMIN_NAME,
    AdminAccount,
    ensure_admin,
    make_directories,
    migrate,
    password_path,
)


@pytest.fixture(autouse=True)
def quick_hashes(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def own_config(tmp_path: Path) -> AppConfig:
    return AppConfig(data_dir=tmp_path / "deep" / "data")


def test_the_data_directory_is_private(own_config: AppConfig) -> None:
    make_directories(own_config)
    make_directories(own_config)
    assert stat.S_IMODE(own_config.data_dir.stat().st_mode) == 0o700


@pytest.mark.django_db
def test_an_up_to_date_database_prints_nothing() -> None:
    said: list[str] = []
    migrate(said.append)
    assert said == []


@pytest.mark.django_db
def test_the_first_start_creates_an_admin_and_later_starts_know_the_password(
    own_config: AppConfig,
) -> None:
    first, second = ensure_admin(own_config), ensure_admin(own_config)
    assert (first.is_new, second.is_new) == (True, False)
    assert first.password == second.password
    admin = User.objects.get(username=ADMIN_NAME)
    assert admin.is_superuser
    assert admin.is_staff
    assert first.password is not None
    assert admin.check_password(first.password)
    assert stat.S_IMODE(password_path(own_config).stat().st_mode) == 0o600


@pytest.mark.django_db
def test_a_changed_password_stays_changed(own_config: AppConfig) -> None:
    ensure_admin(own_config)
    admin = User.objects.get(username=ADMIN_NAME)
    admin.set_password("my own")
    admin.save()
    assert ensure_admin(own_config) == AdminAccount(ADMIN_NAME, None)
    assert User.objects.get(username=ADMIN_NAME).check_password("my own")


@pytest.mark.django_db
def test_a_deleted_admin_is_not_created_beside_another_superuser(
    own_config: AppConfig,
) -> None:
    User.objects.create_superuser("alice", password="hers")
    assert ensure_admin(own_config) == AdminAccount("alice", None)
    assert not User.objects.filter(username=ADMIN_NAME).exists()
    assert not password_path(own_config).exists()
