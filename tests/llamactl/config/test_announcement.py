"""Warnings of the configuration at the start of each service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamactl.config.announcement import announce_warnings
from llamactl.config.variables import ANNOUNCED_VARIABLE
from tests.support.paths import ROOT

from .conftest import Load

MISSPELT = "auth: {require_managment_auth: false}\nsever: {port: 1}\n"


def test_each_warning_is_printed_once_for_a_tree_of_processes(
    load_config: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ANNOUNCED_VARIABLE, raising=False)
    config = load_config(MISSPELT)
    lines: list[str] = []
    announce_warnings(config, lines.append)
    assert len(lines) == 2
    assert "auth.require_managment_auth is unknown and ignored; did you mean" in lines[0]
    # The variable marks the processes that this process starts.
    announce_warnings(config, lines.append)
    assert len(lines) == 2
    assert load_config("{}", **{ANNOUNCED_VARIABLE: "1"}).config_warnings == ()


SERVICES = {
    "run": ["manage.py", "run"],
    "web": ["manage.py", "run", "--only", "web"],
    "celery": ["-m", "celery", "-A", "llamactl", "--quiet", "worker", "--pool", "solo"],
    "asgi": ["-c", "import llamactl.asgi"],
}


def start(service: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Start a service that can't go on."""
    environment = {name: text for name, text in os.environ.items() if "LLAMACTL" not in name}
    return subprocess.run(
        [sys.executable, *SERVICES[service]],
        cwd=ROOT,
        env=environment | {"LLAMACTL_CONFIG_PATH": str(directory / "my.yaml")},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize("service", ["run", "celery", "asgi"])
def test_every_service_refuses_a_data_directory_that_is_a_file(
    tmp_path: Path, service: str
) -> None:
    (tmp_path / "my.yaml").write_text(f"{MISSPELT}data_dir: {tmp_path}/my.yaml")
    done = start(service, tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"{tmp_path}/my.yaml: data_dir: {tmp_path}/my.yaml is not a directory: move that file away;"
        " or set data_dir (or LLAMACTL_DATA_DIRECTORY) to a place that"
        f" {done.stderr.rpartition('a place that ')[2]}"
    )
    assert done.stdout == ""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("service", SERVICES)
def test_every_service_prints_the_warnings_first(tmp_path: Path, service: str) -> None:
    (tmp_path / "my.yaml").write_text(f"{MISSPELT}data_dir: {tmp_path}/data")
    (tmp_path / "data/broker").mkdir(parents=True)
    # Each service but the application of web then fails at a lock, and celery at its pool.
    (tmp_path / "data/broker/lock").mkdir()
    (tmp_path / "data/migrate.lock").mkdir()
    (tmp_path / "data/run.lock").mkdir()
    done = start(service, tmp_path)
    assert "auth.require_managment_auth is unknown and ignored" in done.stderr
    assert "sever is unknown and ignored; did you mean server?" in done.stderr
    assert done.stderr.count("sever is unknown") == 1
