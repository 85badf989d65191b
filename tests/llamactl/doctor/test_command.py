"""``manage.py doctor`` as a program, before the first run and with broken parts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from llamactl.doctor.command import main
from tests.support.paths import ROOT

# Several programs a test, each with all of Django.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

Doctor = Callable[..., tuple[int, dict[str, list[dict[str, str]]]]]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Run the doctor on ``tmp_path/data``; returns its exit code and the findings by subject."""
    (tmp_path / "llamactl.yaml").write_text("{}\n")
    last_port = int(os.environ["LLAMACTL_INSTANCE_PORT_RANGE"].partition("-")[2])
    environment = {
        **{name: text for name, text in os.environ.items() if "LLAMACTL" not in name},
        "LLAMACTL_DATA_DIRECTORY": str(tmp_path / "data"),
        "LLAMACTL_CONFIG_PATH": str(tmp_path / "llamactl.yaml"),
        "LLAMACTL_PORT": "1",  # nothing listens on this port
        # From this test process's own range, at its end, which its other tests do not use.
        "LLAMACTL_INSTANCE_PORT_RANGE": f"{last_port - 10}-{last_port}",
    }

    def run(*command: str, **more: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
        done = subprocess.run(
            [sys.executable, "manage.py", *(command or ("doctor", "--json"))],
            cwd=ROOT,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if command:
            return done.returncode, {}
        found: dict[str, list[dict[str, str]]] = {}
        for finding in json.loads(done.stdout)["findings"]:
            found.setdefault(finding["subject"], []).append(finding)
        return done.returncode, found

    return run


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with its secrets and a database that is up to date, to be copied."""
    directory = tmp_path_factory.mktemp("migrated") / "data"
    environment = {name: text for name, text in os.environ.items() if "LLAMACTL" not in name}
    environment |= {"LLAMACTL_DATA_DIRECTORY": str(directory), "LLAMACTL_CONFIG_PATH": os.devnull}
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    return directory


@pytest.fixture
def data(migrated: Path, tmp_path: Path) -> Path:
    """A data directory that has been used."""
    return shutil.copytree(migrated, tmp_path / "data")


def test_before_the_first_run_there_is_no_problem_and_nothing_is_created(
    doctor: Doctor, tmp_path: Path
) -> None:
    code, found = doctor()
    assert code == 0
    assert found["data directory"][0]["severity"] == "note"
    assert not (tmp_path / "data").exists()


def test_a_go_database_is_named_before_the_first_run(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    with closing(sqlite3.connect(tmp_path / "data" / "llamactl.db")) as go:
        go.execute("CREATE TABLE instances (id INTEGER, name TEXT, status TEXT)")
        go.execute("CREATE TABLE api_keys (id INTEGER, key_hash TEXT)")
        go.commit()
    code, found = doctor()
    assert code == 0
    text = json.dumps(found["database"])
    assert "llamactl.db is a database of the Go llamactl" in text
    assert "import_llamactl" in text


def test_a_broken_config_is_reported_line_by_line(doctor: Doctor) -> None:
    code, found = doctor(LLAMACTL_PORT="http")
    assert code == 1
    assert "server.port is 'http'" in found["config"][0]["message"]


def test_each_stopped_service_is_reported(doctor: Doctor, data: Path) -> None:
    code, found = doctor()
    assert code == 1
    assert found["database"][0]["severity"] == "ok"
    for subject in ("web", "broker", "worker"):
        assert found[subject][0]["severity"] == "problem"
    assert found["llama.cpp"][0]["severity"] == "ok"
    # It should not print the broker's password.
    password = (data / "broker" / "password").read_text().strip()
    assert password not in json.dumps(found)


def test_a_locked_database_is_reported_beside_the_other_checks(doctor: Doctor, data: Path) -> None:
    with closing(sqlite3.connect(data / "llamactl.db", isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        code, found = doctor()
    assert code == 1
    assert "can't be written" in found["database"][0]["message"]
    assert found["clock"][0]["severity"] == "ok"


def test_a_damaged_database_is_reported_beside_the_other_checks(doctor: Doctor, data: Path) -> None:
    (data / "llamactl.db").write_text("this is no database, whatever it was before")
    code, found = doctor()
    assert code == 1
    assert "not a database" in found["database"][0]["message"]
    assert found["ports"][0]["severity"] == "ok"


def test_an_unmigrated_database_is_reported(doctor: Doctor, data: Path) -> None:
    with closing(sqlite3.connect(data / "llamactl.db")) as database:
        database.execute("DELETE FROM django_migrations WHERE app = 'keys' AND name LIKE '0002%'")
        database.commit()
    code, found = doctor()
    assert code == 1
    assert "not up to date" in found["database"][0]["message"]


def test_the_output_without_json_is_lines_and_a_summary(doctor: Doctor) -> None:
    assert doctor("doctor")[0] == 0


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--no-such-flag"])
    assert ended.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


def test_a_file_of_another_user_is_reported_before_the_settings_fail(
    doctor: Doctor, data: Path
) -> None:
    (data / "logs").touch()
    code, found = doctor()
    assert code == 1
    message = found["data directory"][1]["message"]
    assert "instances can't start" in message
    assert f"instances.logs_dir: {data}/logs is not a directory" in message


@pytest.mark.parametrize("command", ["doctor", "check_config", "help"])
def test_a_reader_that_leaves_ends_the_command_without_a_traceback(
    command: str, tmp_path: Path
) -> None:
    environment = os.environ | {"LLAMACTL_DATA_DIRECTORY": str(tmp_path / "data")}
    process = subprocess.Popen(
        [sys.executable, "manage.py", *command.split()],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()  # as head does when it has its lines
    _, errors = process.communicate(timeout=200)
    assert b"Traceback" not in errors
    assert b"BrokenPipe" not in errors
    assert process.returncode == 128 + signal.SIGPIPE


def test_a_terminal_that_has_not_all_characters_is_no_obstacle(tmp_path: Path) -> None:
    names = {"LLAMACTL_DATA_DIRECTORY": str(tmp_path / "dä"), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "manage.py", "check_config"],
        cwd=ROOT,
        env=os.environ | names,
        capture_output=True,
        check=True,
    )
    assert rb"d\xe4" in done.stdout
