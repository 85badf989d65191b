"""check_config and GET /api/v1/config show every effective value, and no secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from instances.backends.registry import config_sections
from llamactl import config as config_package
from llamactl.config import current, explain
from llamactl.config.explain import redacted, values
from llamactl.management.commands.check_config import Command
from tests.support.paths import ROOT

from .conftest import Load, Refuse

SECRETS = """
auth: {management_keys: [hunter2], inference_keys: [hunter2]}
nodes: {w: {address: 'http://w', api_key: hunter2}}
redis: {url: 'redis://:hunter2@h/0'}
database: {url: 'postgres://u:hunter2@h/d?sslpassword=hunter2', connection_max_lifetime: 5m}
backends:
  llama-cpp:
    args: [--api-key, hunter2, -v]
    environment: {HF_TOKEN: hunter2, EMPTY: ''}
    docker: {args: [run, -e, HF_TOKEN=hunter2], environment: {HF_TOKEN: hunter2}}
  vllm: {response_headers: {X-A: b}}
"""


@pytest.fixture
def working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where ``main`` runs, with none of the test settings' variables."""
    for name in ("CONFIG_PATH", "DATA_DIRECTORY", "MANAGEMENT_KEYS", "INSTANCE_PORT_RANGE"):
        monkeypatch.delenv(f"LLAMACTL_{name}", raising=False)
    for name in ("DRAIN_TIMEOUT", "STOP_TIMEOUT", "PORT"):
        monkeypatch.delenv(f"LLAMACTL_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_redacted_has_the_seeds_keys_and_shapes(load_config: Load) -> None:
    document = redacted(load_config(SECRETS), version="1.2.3", commit_hash="c", build_time="t")
    assert document == json.loads(json.dumps(document))
    assert list(document) == [
        *("server", "backends", "instances", "database", "redis", "auth", "local_node", "nodes"),
        *("data_dir", "version", "commit_hash", "build_time"),
    ]
    assert document["auth"] == {
        "require_inference_auth": True,
        "inference_keys": [],
        "require_management_auth": True,
        "management_keys": [],
    }
    assert document["nodes"] == {"main": {"address": ""}, "w": {"address": "http://w"}}
    assert document["redis"] == {"url": "redis://:***@h/0"}
    database = document["database"]
    assert isinstance(database, dict)
    assert database["connection_max_lifetime"] == 300_000_000_000
    assert database["url"] == "postgres://u:***@h/d?sslpassword=***"
    instances = document["instances"]
    assert isinstance(instances, dict)
    assert instances["port_range"] == [8000, 9000]
    assert isinstance(instances["logs_dir"], str)
    assert "group_limits" not in instances


def test_redacted_backends(load_config: Load) -> None:
    backends = redacted(load_config(SECRETS))["backends"]
    assert isinstance(backends, dict)
    assert backends["llama-cpp"] == {
        "command": "llama-server",
        "args": ["--api-key", "***", "-v"],
        "environment": {"HF_TOKEN": "***", "EMPTY": ""},
        "docker": {
            "enabled": False,
            "image": "ghcr.io/ggml-org/llama.cpp:server",
            "args": ["run", "-e", "HF_TOKEN=***"],
            "environment": {"HF_TOKEN": "***"},
        },
    }
    assert backends["vllm"]["response_headers"] == {"X-A": "b"}
    assert backends["mlx"] == {"command": "mlx_lm.server", "args": []}


def test_redacted_leaves_the_configuration_alone(load_config: Load) -> None:
    config = load_config(SECRETS)
    before = config.model_dump()
    redacted(config)
    assert config.model_dump() == before


def test_no_secret_in_any_view(load_config: Load) -> None:
    config = load_config(SECRETS)
    assert "hunter2" not in json.dumps(redacted(config))
    assert "hunter2" not in str(list(explain.values(config)))


def test_values_come_with_their_origins(load_config: Load, tmp_path: Path) -> None:
    config = load_config(
        "server: {host: h}\nbackends: {vllm: {environment: {A: b}}}",
        dotenv="LLAMACTL_MAX_BODY_MIB=7",
        LLAMACTL_PORT="81",
    )
    rows = {key: (value, origin) for key, value, origin in explain.values(config)}
    assert rows["server.host"] == ("h", f"{tmp_path}/llamactl.yaml")
    assert rows["server.port"] == ("81", "LLAMACTL_PORT")
    assert rows["server.max_body_mib"] == ("7", f"{tmp_path}/.env: LLAMACTL_MAX_BODY_MIB")
    assert rows["server.web_processes"] == ("1", "default")
    assert rows["instances.port_range"] == ("[8000, 9000]", "default")
    assert rows["backends.llama-cpp.environment"] == ("{}", "default")
    assert rows["backends.vllm.environment.A"] == ("***", f"{tmp_path}/llamactl.yaml")


def test_main_explains_the_given_file(
    working_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (working_directory / "llamactl.yaml").write_text("server: {port: broken}")
    (working_directory / "other.yaml").write_text("server: {port: 81, prot: 1}")
    assert explain.main(["other.yaml"], config_sections()) == 0
    out, err = capsys.readouterr()
    assert f"server.port = 81  # {working_directory}/other.yaml\n" in out
    assert "server.host = 127.0.0.1  # default\n" in out
    assert err == (
        f"warning: {working_directory}/other.yaml: server.prot is unknown and ignored; "
        "did you mean port?\n"
    )


def test_main_without_a_file_explains_the_one_in_use(
    working_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (working_directory / "llamactl.yaml").write_text("sever: 1\nserver: {port: broken}")
    assert explain.main([], config_sections()) == 2
    out, err = capsys.readouterr()
    file = working_directory / "llamactl.yaml"
    assert out == ""
    assert err == (
        f"warning: {file}: sever is unknown and ignored; did you mean server?\n"
        f"error: {file}: server.port is 'broken', but must be a port number from 1 to 65535\n"
    )


def test_command_exits_as_main_does(
    working_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (working_directory / "good.yaml").write_text("local_node: w1")
    Command().run_from_argv(["manage.py", "check_config", "good.yaml"])
    assert "local_node = w1" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exited:
        Command().run_from_argv(["manage.py", "check_config", "missing.yaml"])
    assert exited.value.code == 2
    assert "missing.yaml: can't be read: No such file or directory" in capsys.readouterr().err


def test_main_needs_no_settings(working_directory: Path) -> None:
    # It should explain a configuration with which Django's settings can't be loaded.
    code = (
        "import sys; from instances.backends.registry import config_sections;"
        "from llamactl.config.explain import main; code = main([], config_sections()); "
        "assert 'llamactl.settings' not in sys.modules; sys.exit(code)"
    )
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(root), "HOME": str(working_directory), "LLAMACTL_PORT": "x"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: LLAMACTL_PORT: server.port is 'x', but must be")


def test_current_returns_the_configuration_of_the_settings(
    load_config: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config()
    monkeypatch.setattr(config_package, "settings", SimpleNamespace(LLAMACTL=config))
    assert current() is config


@pytest.mark.parametrize("user", ["me:hunter2", "hunter2"])
def test_a_nodes_address_is_shown_without_its_password(
    load_config: Load, refuse: Refuse, user: str
) -> None:
    config = load_config(f"nodes: {{w: {{address: 'http://{user}@gpu:81/x'}}}}")
    assert config.nodes["w"].address == f"http://{user}@gpu:81/x"
    assert "hunter2" not in str(redacted(config))
    assert "@gpu:81/x" in str(redacted(config)["nodes"])
    assert not [row for row in values(config) if "hunter2" in row[1]]
    assert "hunter2" not in str(refuse(f"nodes: {{w: {{address: 'htp://{user}@gpu'}}}}"))


@pytest.mark.parametrize(
    ("yaml", "flag"),
    [
        ("args: [--api-key, hunter2]", "--api-key"),
        ("args: [--api-key=hunter2]", "--api-key"),
        ("args: [--header, 'Authorization: Bearer hunter2']", "--header"),
        ("args: [--model-url, 'https://me:hunter2@x/y']", "--model-url"),
        ("docker: {args: [run, -e, HF_TOKEN=hunter2]}", "-e"),
    ],
)
def test_a_secret_in_arguments_is_a_warning(load_config: Load, yaml: str, flag: str) -> None:
    (warning,) = load_config(f"backends: {{llama-cpp: {{{yaml}}}}}").config_warnings
    assert f"args has a secret, the value of {flag}, and every user" in warning
    assert "put it into backends.llama-cpp." in warning
    assert "hunter2" not in warning
