"""Directories and files that this user can't use, each a sentence with setting and remedy."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llamactl.config import AppConfig, ConfigError
from llamactl.config.places import check_places, place_warnings, unusable_places

from .conftest import Load

NOBODY = 65534


@contextmanager
def as_another_user() -> Iterator[None]:
    """Act as a user without privileges, where the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that other users can enter, unlike ``tmp_path``."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    for each in [directory, *directory.rglob("*")]:
        each.chmod(0o700)
    shutil.rmtree(directory)


@pytest.fixture
def config(load_config: Load, home: Path) -> Callable[..., AppConfig]:
    def load(**environ: str) -> AppConfig:
        return load_config(LLAMACTL_DATA_DIRECTORY=str(home / "data"), **environ)

    return load


def data_directory(home: Path) -> Path:
    """A data directory as a former run of this user left it, open to the other user."""
    data = home / "data"
    for name in ("", "broker", "logs"):
        (data / name).mkdir()
        (data / name).chmod(0o777)
    for name in ("secret_key", "management_key", "broker/password", "run.lock", "llamactl.db"):
        (data / name).write_text("x")
        (data / name).chmod(0o666)
    return data


def test_usable_places_are_no_finding(config: Callable[..., AppConfig], home: Path) -> None:
    assert list(unusable_places(config())) == []
    data = data_directory(home)
    with as_another_user():
        assert list(unusable_places(config())) == []
        assert list(place_warnings(config())) == []
    # Nor are files of the operator's own.
    (data / "notes.txt").touch(mode=0)
    with as_another_user():
        check_places(config())


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("", 0o555),
        ("", 0),
        ("secret_key", 0),
        ("management_key", 0),
        ("broker", 0o555),
        ("broker/password", 0),
        ("run.lock", 0o444),
        ("llamactl.db", 0o444),
    ],
)
def test_a_closed_place_names_setting_owner_and_remedy(
    config: Callable[..., AppConfig], home: Path, name: str, mode: int
) -> None:
    path = data_directory(home) / name
    path.chmod(mode)
    owner = os.geteuid()
    with as_another_user():
        user = os.geteuid()
        with pytest.raises(ConfigError) as caught:
            check_places(config())
    (line,) = caught.value.lines
    assert f"data_dir: {path} can't be read" in line
    assert "or set data_dir (or LLAMACTL_DATA_DIRECTORY) to a place" in line
    wanted = "chmod u+rw" if owner == user else f"'chown -R {user} {home / 'data'}'"
    assert wanted in line
    assert f"{mode:04o}" in line


def test_several_closed_files_are_one_sentence(
    config: Callable[..., AppConfig], home: Path
) -> None:
    data = data_directory(home)
    for name in ("secret_key", "run.lock", "llamactl.db"):
        (data / name).chmod(0)
    with as_another_user():
        line = str(*unusable_places(config()))
    assert f"{data / 'secret_key'} (and 2 more) can't be read" in line


def test_a_file_system_that_makes_no_directories_is_named(load_config: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        check_places(load_config(LLAMACTL_DATA_DIRECTORY="/proc/llamactl"))
    assert str(caught.value).startswith("LLAMACTL_DATA_DIRECTORY: data_dir: /proc/llamactl")
    assert "or set data_dir" in str(caught.value)


@pytest.mark.parametrize("data_dir", ["file", "file/below", "file/far/below"])
def test_a_file_in_the_way_is_named(load_config: Load, tmp_path: Path, data_dir: str) -> None:
    (tmp_path / "file").touch()
    config = load_config(f"data_dir: {data_dir}")
    line = str(*unusable_places(config))
    assert line.startswith(f"{tmp_path}/llamactl.yaml: data_dir: {tmp_path / data_dir} ")
    assert "not a directory: move that file away; or set data_dir" in line


def test_a_directory_that_can_not_be_created_tells_how(
    config: Callable[..., AppConfig], home: Path
) -> None:
    home.chmod(0o555)
    with as_another_user():
        line = str(*unusable_places(config()))
        assert f"{home / 'data'} does not exist" in line
        assert f"install -d -m 700 -o {os.geteuid()} {home / 'data'}" in line


@pytest.mark.parametrize("setting", ["LLAMACTL_DATABASE_PATH", "LLAMACTL_LOGS_DIR"])
def test_places_outside_the_data_directory_are_checked(
    config: Callable[..., AppConfig], home: Path, setting: str
) -> None:
    data_directory(home)
    (home / "other").mkdir(mode=0o755)
    (home / "other").chmod(0o555)
    loaded = config(**{setting: str(home / "other" / "x")})
    with as_another_user():
        found = list(unusable_places(loaded))
        warnings = list(place_warnings(loaded))
    # Without logs no instance starts, but those that run go on.
    lines, others = (warnings, found) if "LOGS" in setting else (found, warnings)
    assert others == []
    assert f"{home / 'other'}" in lines[0].finding
    assert setting in lines[0].remedy


def test_a_log_directory_that_nothing_creates_is_a_warning(load_config: Load) -> None:
    config = load_config("instances: {auto_create_dirs: false, logs_dir: gone}")
    (warning,) = place_warnings(config)
    assert warning.finding.startswith("instances can't start: ")
    assert "instances.auto_create_dirs is false" in warning.finding


def test_root_is_warned_of_a_directory_of_another_user(
    config: Callable[..., AppConfig], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_directory(home)
    if os.geteuid() == 0:
        os.chown(home / "data", NOBODY, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (warning,) = place_warnings(config())
    assert "and this process runs as root" in warning.finding


def test_a_log_of_another_user_is_a_warning(config: Callable[..., AppConfig], home: Path) -> None:
    log = data_directory(home) / "logs" / "qwen.log"
    log.touch()
    log.chmod(0o444)
    with as_another_user():
        check_places(config())
        warning = next(iter(place_warnings(config())))
    assert warning.stops_instances
    assert f"{log} can't be read and written" in warning.finding


def test_files_that_are_not_needed_are_no_finding(
    config: Callable[..., AppConfig], home: Path
) -> None:
    data = data_directory(home)
    (data / "models").mkdir(mode=0o700)
    for name in ("management_key", "broker/password", "broker", "models"):
        (data / name).chmod(0)
    loaded = config(LLAMACTL_MANAGEMENT_KEYS="k", LLAMACTL_REDIS_URL="redis://127.0.0.1")
    with as_another_user():
        assert list(unusable_places(loaded)) == []
