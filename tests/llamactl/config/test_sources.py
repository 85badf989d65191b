"""Who wins, what a file may say, and what names the environment has."""

from __future__ import annotations

import errno
import io
import os
import re
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from instances.backends import config_sections
from llamactl.config import AppConfig, ConfigError, load
from llamactl.config.variables import other_variables_with, variables_with
from llamactl.config.yaml_text import MOST_ALIASES

from .conftest import Load, Refuse

VARIABLES = variables_with(config_sections())
OTHER_VARIABLES = other_variables_with(config_sections())

SEED_VARIABLES = {
    "LLAMACTL_HOST": ("server.host", "::1", "::1"),
    "LLAMACTL_PORT": ("server.port", "3000", 3000),
    "LLAMACTL_ALLOWED_ORIGINS": (
        "server.allowed_origins",
        "http://a, http://b",
        ["http://a", "http://b"],
    ),
    "LLAMACTL_ENABLE_SWAGGER": ("server.enable_swagger", "f", False),
    "LLAMACTL_DATA_DIRECTORY": ("data_dir", "/d", Path("/d")),
    "LLAMACTL_DATA_DIR": ("data_dir", "/d", Path("/d")),
    "LLAMACTL_INSTANCE_PORT_RANGE": ("instances.port_range", "5000-6000", (5000, 6000)),
    "LLAMACTL_INSTANCES_DIR": ("instances.configs_dir", "/i", Path("/i")),
    "LLAMACTL_LOGS_DIR": ("instances.logs_dir", "/l", Path("/l")),
    "LLAMACTL_AUTO_CREATE_DATA_DIR": ("instances.auto_create_dirs", "0", False),
    "LLAMACTL_MAX_INSTANCES": ("instances.max_instances", "20", 20),
    "LLAMACTL_MAX_RUNNING_INSTANCES": ("instances.max_running_instances", "2", 2),
    "LLAMACTL_ENABLE_LRU_EVICTION": ("instances.enable_lru_eviction", "False", False),
    "LLAMACTL_DEFAULT_AUTO_RESTART": ("instances.default_auto_restart", "false", False),
    "LLAMACTL_DEFAULT_MAX_RESTARTS": ("instances.default_max_restarts", "7", 7),
    "LLAMACTL_DEFAULT_RESTART_DELAY": ("instances.default_restart_delay", "15", 15),
    "LLAMACTL_DEFAULT_ON_DEMAND_START": ("instances.default_on_demand_start", "F", False),
    "LLAMACTL_DEFAULT_IDLE_TIMEOUT": ("instances.default_idle_timeout", "60", 60),
    "LLAMACTL_ON_DEMAND_START_TIMEOUT": ("instances.on_demand_start_timeout", "9", 9),
    "LLAMACTL_TIMEOUT_CHECK_INTERVAL": ("instances.timeout_check_interval", "1", 1),
    "LLAMACTL_LOG_ROTATION_ENABLED": ("instances.log_rotation_enabled", "0", False),
    "LLAMACTL_LOG_ROTATION_MAX_SIZE": ("instances.log_rotation_max_size", "5", 5),
    "LLAMACTL_LOG_ROTATION_COMPRESS": ("instances.log_rotation_compress", "1", True),
    "LLAMACTL_DATABASE_PATH": ("database.path", "/x.db", Path("/x.db")),
    "LLAMACTL_DATABASE_MAX_OPEN_CONNECTIONS": ("database.max_open_connections", "1", 1),
    "LLAMACTL_DATABASE_MAX_IDLE_CONNECTIONS": ("database.max_idle_connections", "0", 0),
    "LLAMACTL_DATABASE_CONN_MAX_LIFETIME": ("database.connection_max_lifetime", "1h", 3600.0),
    "LLAMACTL_REQUIRE_INFERENCE_AUTH": ("auth.require_inference_auth", "false", False),
    "LLAMACTL_REQUIRE_MANAGEMENT_AUTH": ("auth.require_management_auth", "false", False),
    "LLAMACTL_MANAGEMENT_KEYS": ("auth.management_keys", "a,b", ["a", "b"]),
    "LLAMACTL_INFERENCE_KEYS": ("auth.inference_keys", "c", ["c"]),
    "LLAMACTL_LOCAL_NODE": ("local_node", "w1", "w1"),
    "LLAMACTL_LLAMACPP_COMMAND": ("backends.llama_cpp.command", "/opt/x", "/opt/x"),
    "LLAMACTL_LLAMACPP_ARGS": ("backends.llama_cpp.args", "-a  --b 4", ["-a", "--b", "4"]),
    "LLAMACTL_LLAMACPP_ENV": (
        "backends.llama_cpp.environment",
        "A=1,B=x=y",
        {"A": "1", "B": "x=y"},
    ),
    "LLAMACTL_LLAMACPP_RESPONSE_HEADERS": (
        "backends.llama_cpp.response_headers",
        "X-A=1,2;X-B=3",
        {"X-A": "1,2", "X-B": "3"},
    ),
    "LLAMACTL_LLAMACPP_CACHE_DIR": ("backends.llama_cpp.cache_dir", "/c", Path("/c")),
    "LLAMACTL_LLAMACPP_DOCKER_ENABLED": ("backends.llama_cpp.docker.enabled", "true", True),
    "LLAMACTL_LLAMACPP_DOCKER_IMAGE": ("backends.llama_cpp.docker.image", "i:l", "i:l"),
    "LLAMACTL_LLAMACPP_DOCKER_ARGS": (
        "backends.llama_cpp.docker.args",
        "run --rm",
        ["run", "--rm"],
    ),
    "LLAMACTL_LLAMACPP_DOCKER_ENV": (
        "backends.llama_cpp.docker.environment",
        "CUDA_VISIBLE_DEVICES=0,1,T=4",
        {"CUDA_VISIBLE_DEVICES": "0,1", "T": "4"},
    ),
    "LLAMACTL_VLLM_COMMAND": ("backends.vllm.command", "v", "v"),
    "LLAMACTL_VLLM_ARGS": ("backends.vllm.args", "serve -x", ["serve", "-x"]),
    "LLAMACTL_VLLM_ENV": ("backends.vllm.environment", "A=1", {"A": "1"}),
    "LLAMACTL_VLLM_RESPONSE_HEADERS": ("backends.vllm.response_headers", "X-A=1", {"X-A": "1"}),
    "LLAMACTL_VLLM_DOCKER_ENABLED": ("backends.vllm.docker.enabled", "1", True),
    "LLAMACTL_VLLM_DOCKER_IMAGE": ("backends.vllm.docker.image", "i", "i"),
    "LLAMACTL_VLLM_DOCKER_ARGS": ("backends.vllm.docker.args", "run", ["run"]),
    "LLAMACTL_VLLM_DOCKER_ENV": ("backends.vllm.docker.environment", "A=1", {"A": "1"}),
    "LLAMACTL_MLX_COMMAND": ("backends.mlx.command", "m", "m"),
    "LLAMACTL_MLX_ARGS": ("backends.mlx.args", "-x", ["-x"]),
    "LLAMACTL_MLX_ENV": ("backends.mlx.environment", "A=1", {"A": "1"}),
    "LLAMACTL_MLX_RESPONSE_HEADERS": ("backends.mlx.response_headers", "X-A=1", {"X-A": "1"}),
}

OUR_VARIABLES = {
    "LLAMACTL_ALLOWED_HEADERS": ("server.allowed_headers", "X-A,X-B", ["X-A", "X-B"]),
    "LLAMACTL_RESPONSE_HEADERS": ("server.response_headers", "X-A=1;X-B=", {"X-A": "1", "X-B": ""}),
    "LLAMACTL_WEB_PROCESSES": ("server.web_processes", "4", 4),
    "LLAMACTL_MAX_BODY_MIB": ("server.max_body_mib", "1", 1),
    "LLAMACTL_UPSTREAM_FIRST_BYTE_TIMEOUT": ("server.upstream_first_byte_timeout", "5m", 300.0),
    "LLAMACTL_UPSTREAM_IDLE_TIMEOUT": ("server.upstream_idle_timeout", "90", 90.0),
    "LLAMACTL_GROUP_LIMITS": ("instances.group_limits", "big=1,small=-1", {"big": 1, "small": -1}),
    "LLAMACTL_LOG_ROTATION_BACKUPS": ("instances.log_rotation_backups", "7", 7),
    "LLAMACTL_START_TIMEOUT": ("instances.start_timeout", "10m", 600.0),
    "LLAMACTL_DRAIN_TIMEOUT": ("instances.drain_timeout", "0", 0.0),
    "LLAMACTL_STOP_TIMEOUT": ("instances.stop_timeout", "2.5", 2.5),
    "LLAMACTL_SWAP_AFTER": ("instances.swap_after", "0", 0.0),
    "LLAMACTL_LOADS_AT_BOOT": ("instances.loads_at_boot", "2", 2),
    "LLAMACTL_UNHEALTHY_TIMEOUT": ("instances.unhealthy_timeout", "5m", 300.0),
    "LLAMACTL_ORPHAN_GRACE": ("instances.orphan_grace", "60s", 60.0),
    "LLAMACTL_KEEP_BACKENDS": ("instances.keep_backends", "0", False),
    "LLAMACTL_DATABASE_URL": ("database.url", "postgres://u:p@h/d", "postgres://u:p@h/d"),
    "LLAMACTL_REDIS_URL": ("redis.url", "redis://:p@h:1/0", "redis://:p@h:1/0"),
}

ALL_VARIABLES = {**SEED_VARIABLES, **OUR_VARIABLES}


def value_at(config: AppConfig, key: str) -> object:
    """The value of a dotted key, with secrets as texts."""
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    if isinstance(value, list):
        return [getattr(item, "get_secret_value", lambda item=item: item)() for item in value]
    return getattr(value, "get_secret_value", lambda: value)()


# -- names of the environment ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_VARIABLES)
def test_variable_sets_its_field(load_config: Load, name: str) -> None:
    key, text, expected = ALL_VARIABLES[name]
    config = load_config(**{name: text})
    assert value_at(config, key) == expected
    assert config.origin(tuple(key.split("."))) == name


def test_every_variable_of_the_table_is_tested_here() -> None:
    assert set(VARIABLES) == set(ALL_VARIABLES)


def test_every_field_but_nodes_has_a_variable(load_config: Load) -> None:
    def keys(model: BaseModel, prefix: str) -> list[str]:
        found = []
        for name in type(model).model_fields:
            value = getattr(model, name)
            if isinstance(value, BaseModel):
                found += keys(value, f"{prefix}{name}.")
            else:
                found.append(prefix + name)
        return found

    without = set(keys(load_config(), "")) - set(VARIABLES.values())
    assert without == {"nodes", "backends.mlx.docker"}


def test_empty_variable_counts_as_unset(load_config: Load) -> None:
    config = load_config("server: {port: 81}", LLAMACTL_PORT="", LLAMACTL_MANAGEMENT_KEYS="")
    assert config.server.port == 81


def test_data_directory_wins_over_its_alias(load_config: Load) -> None:
    config = load_config(LLAMACTL_DATA_DIR="/a", LLAMACTL_DATA_DIRECTORY="/b")
    assert config.data_dir == Path("/b")
    assert config.origin(("data_dir",)) == "LLAMACTL_DATA_DIRECTORY"


def test_unknown_variable_is_a_warning_with_a_guess(load_config: Load) -> None:
    config = load_config(LLAMACTL_PROT="1", LLAMACTL_XYZZY="1", OTHER="1")
    assert config.config_warnings == (
        "LLAMACTL_PROT is unknown and ignored; did you mean LLAMACTL_PORT?",
        "LLAMACTL_XYZZY is unknown and ignored",
    )


def test_variables_of_a_kubernetes_service_are_not_ours(load_config: Load) -> None:
    # It should start although Kubernetes sets LLAMACTL_PORT for a Service called llamactl.
    config = load_config(
        LLAMACTL_PORT="tcp://10.0.0.1:8080",
        LLAMACTL_PORT_8080_TCP="tcp://10.0.0.1:8080",
        LLAMACTL_PORT_8080_TCP_ADDR="10.0.0.1",
        LLAMACTL_SERVICE_HOST="10.0.0.1",
        LLAMACTL_SERVICE_PORT_HTTP="8080",
    )
    assert config.server.port == 8080
    assert config.config_warnings == ()


def test_names_that_set_nothing_are_known(load_config: Load) -> None:
    config = load_config(LLAMACTL_LLAMACPP_DOWNLOAD_TIMEOUT="1h", LLAMACTL_CONFIG_PATH="")
    (warning,) = config.config_warnings
    assert "LLAMACTL_LLAMACPP_DOWNLOAD_TIMEOUT is ignored" in warning
    assert not set(OTHER_VARIABLES) & set(VARIABLES)


def test_bad_variable_names_itself_and_the_key(refuse: Refuse) -> None:
    assert str(refuse(LLAMACTL_PORT="70000")) == (
        "LLAMACTL_PORT: server.port is '70000', but must be a port number from 1 to 65535"
    )


# -- precedence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "port", "origin"),
    [
        ("", 8080, "default"),
        ("d", 1, ".env: LLAMACTL_PORT"),
        ("dy", 2, "llamactl.yaml"),
        ("dye", 3, "LLAMACTL_PORT"),
        ("de", 3, "LLAMACTL_PORT"),
        ("ye", 3, "LLAMACTL_PORT"),
    ],
)
def test_precedence(load_config: Load, layers: str, port: int, origin: str) -> None:
    config = load_config(
        "server: {port: 2}" if "y" in layers else None,
        dotenv="LLAMACTL_PORT=1\n" if "d" in layers else None,
        **({"LLAMACTL_PORT": "3"} if "e" in layers else {}),
    )
    assert config.server.port == port
    assert config.origin(("server", "port")).endswith(origin)


def test_sections_merge_key_by_key_and_lists_are_replaced(load_config: Load) -> None:
    config = load_config(
        "server: {host: h, allowed_origins: [a]}\n"
        "backends: {llama-cpp: {environment: {A: file, B: file}}}\n",
        dotenv="LLAMACTL_LLAMACPP_ENV=A=dotenv,C=dotenv\nLLAMACTL_PORT=99\n",
        LLAMACTL_ALLOWED_ORIGINS="b",
        LLAMACTL_LLAMACPP_ENV="A=environment",
    )
    assert (config.server.host, config.server.port) == ("h", 99)
    assert config.server.allowed_origins == ["b"]
    environment = config.backends.llama_cpp.environment
    assert environment == {"A": "environment", "B": "file", "C": "dotenv"}
    path = ("backends", "llama_cpp", "environment")
    assert config.origin((*path, "A")) == "LLAMACTL_LLAMACPP_ENV"
    assert config.origin((*path, "B")).endswith("llamactl.yaml")
    assert config.origin((*path, "C")).endswith(".env: LLAMACTL_LLAMACPP_ENV")


def test_overridden_bad_value_of_the_same_key_does_no_harm(load_config: Load) -> None:
    assert load_config("server: {port: x}", LLAMACTL_PORT="3").server.port == 3


def test_plain_construction_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER", '{"port": 1}')
    monkeypatch.setenv("LLAMACTL_PORT", "1")
    assert AppConfig().server.port == 8080


def test_load_reads_the_process_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("LLAMACTL_")]:
        monkeypatch.delenv(name)  # the test settings' own
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMACTL_PORT", "4")
    (tmp_path / "config.yaml").write_text("server: {host: from-file}")
    config = load(backends=config_sections())
    assert (config.server.port, config.server.host) == (4, "from-file")


# -- where the file is ----------------------------------------------------------------------------


def test_first_readable_of_the_usual_places(tmp_path: Path) -> None:
    places = ["llamactl.yaml", "config.yaml", "home/.config/llamactl/config.yaml"]
    for number, place in reversed(list(enumerate(places, 1))):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(f"server: {{port: {number}}}")
        config = load({"HOME": str(tmp_path / "home")}, tmp_path, backends=config_sections())
        assert config.server.port == number


def test_unusable_file_in_a_usual_place_is_skipped_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "llamactl.yaml").mkdir()
    (tmp_path / "config.yaml").write_text("server: {port: 5}")
    config = load({"HOME": str(tmp_path)}, tmp_path, backends=config_sections())
    assert config.server.port == 5
    assert config.config_warnings == (f"{tmp_path}/llamactl.yaml is ignored: Is a directory",)


def test_explicit_path_with_a_nul_is_an_error(refuse: Refuse) -> None:
    assert "LLAMACTL_CONFIG_PATH has a NUL character" in str(refuse(LLAMACTL_CONFIG_PATH="a\0"))


@pytest.mark.parametrize("path", ["{tmp}/my.yaml", "my.yaml", "~/my.yaml"])
def test_explicit_path_is_the_only_one(load_config: Load, tmp_path: Path, path: str) -> None:
    for directory in (tmp_path, tmp_path / "home"):
        directory.mkdir(exist_ok=True)
        (directory / "my.yaml").write_text("server: {host: mine}")
    config = load_config("server: {port: 5}", LLAMACTL_CONFIG_PATH=path.format(tmp=tmp_path))
    assert (config.server.host, config.server.port) == ("mine", 8080)


def test_explicit_path_may_come_from_dotenv_and_from_the_caller(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LLAMACTL_CONFIG_PATH=a.yaml")
    (tmp_path / "a.yaml").write_text("server: {host: a}")
    (tmp_path / "b.yaml").write_text("server: {host: b}")
    environ = {"HOME": str(tmp_path)}
    load_here = partial(load, environ, tmp_path, backends=config_sections())
    assert load_here().server.host == "a"
    assert load_here(config_path=Path("b.yaml")).server.host == "b"


def test_explicit_file_that_is_missing_is_an_error(refuse: Refuse, tmp_path: Path) -> None:
    error = refuse("server: {port: 5}", LLAMACTL_CONFIG_PATH="no.yaml")
    assert str(error) == f"{tmp_path}/no.yaml: can't be read: No such file or directory"


def test_file_that_is_private(
    load_config: Load, refuse: Refuse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(path: Path, mode: str) -> BinaryIO:
        if path.name.endswith(".yaml"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return io.BytesIO()

    monkeypatch.setattr(Path, "open", refused)
    error = refuse(LLAMACTL_CONFIG_PATH="mine.yaml")
    assert str(error) == f"{tmp_path}/mine.yaml: can't be read: Permission denied"
    assert (
        "/etc/llamactl/config.yaml is ignored: Permission denied" in load_config().config_warnings
    )


def test_home_may_be_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert load({}, tmp_path, backends=config_sections()).data_dir == Path("/.local/share/llamactl")


# -- the file -------------------------------------------------------------------------------------

GO_FILE = """
# A file in the Go program's words, all of its keys.
server:
  host: "0.0.0.0"
  port: 8080
  allowed_origins: ["*"]
  allowed_headers: ["Accept", "Authorization"]
  enable_swagger: false
  response_headers:
    X-Frame-Options: DENY
backends:
  llama-cpp:
    command: "llama-server"
    args: [--threads, 8, --no-webui, 0.10]
    environment: {CUDA_VISIBLE_DEVICES: 0, RATIO: 0.10, VERBOSE: true, EMPTY: , MAP: 22:22}
    docker:
      enabled: true
      image: "ghcr.io/ggml-org/llama.cpp:server-cuda"
      args: ["run", "--rm", "-p", 22:22]
      environment: {}
    response_headers: {}
    cache_dir: ""
  vllm:
    command: "vllm"
    args: ["serve"]
    docker:
      enabled: false
  mlx:
    command: "mlx_lm.server"
    args: []
instances:
  port_range: [8000, 9000]
  configs_dir: ""
  logs_dir: ""
  auto_create_dirs: true
  max_instances: -1
  max_running_instances: 4
  enable_lru_eviction: yes
  group_limits: {gpu: 1}
  default_auto_restart: on
  default_max_restarts: 3
  default_restart_delay: 5
  default_on_demand_start: true
  default_idle_timeout: 30
  on_demand_start_timeout: 120
  timeout_check_interval: 5
  log_rotation_enabled: true
  log_rotation_max_size: 100
  log_rotation_compress: false
data_dir: "/var/lib/llamactl"
database:
  path: ""
  max_open_connections: 25
  max_idle_connections: 5
  connection_max_lifetime: 5m
auth:
  require_inference_auth: true
  require_management_auth: true
  management_keys: []
local_node: main
nodes:
  main: {}
  worker1:
    address: "http://192.168.1.10:8080"
    api_key: "worker-key"
"""


def test_file_of_the_go_program_loads_unchanged(load_config: Load) -> None:
    config = load_config(GO_FILE)
    assert config.config_warnings == ()
    assert config.server.host == "0.0.0.0"
    assert config.instances.enable_lru_eviction is True
    assert config.instances.group_limits == {"gpu": 1}
    # It should keep the text of scalars, as Go does, where texts are asked for.
    llama_cpp = config.backends.llama_cpp
    assert llama_cpp.args == ["--threads", "8", "--no-webui", "0.10"]
    assert llama_cpp.environment == {
        "CUDA_VISIBLE_DEVICES": "0",
        "RATIO": "0.10",
        "VERBOSE": "true",
        "EMPTY": "",
        "MAP": "22:22",
    }
    assert llama_cpp.docker is not None
    assert llama_cpp.docker.args[-1] == "22:22"
    # It should put "" where the defaults are, for directories.
    assert config.instances.logs_dir == Path("/var/lib/llamactl/logs")
    assert config.database.path == Path("/var/lib/llamactl/llamactl.db")
    key = config.nodes["worker1"].api_key
    assert key is not None
    assert key.get_secret_value() == "worker-key"


@pytest.mark.parametrize(
    "yaml", ["", "\n", "# nothing\n", "---\n", "null", "{}", "\ufeffserver: {}"]
)
def test_file_may_say_nothing(load_config: Load, yaml: str) -> None:
    assert load_config(yaml).server.port == 8080


def test_keys_without_values_are_as_in_go(load_config: Load) -> None:
    config = load_config(
        "server:\n  host:\n  allowed_origins:\ninstances:\nnodes:\nbackends:\n  llama-cpp:\n"
        "    command:\n    docker:\n  vllm:\n    args:\n    environment:\n",
        dotenv="LLAMACTL_HOST=from-dotenv",
    )
    assert config.server.host == "from-dotenv"
    assert config.server.allowed_origins == []
    assert config.backends.llama_cpp.command == "llama-server"
    assert config.backends.llama_cpp.docker is None
    assert config.backends.vllm.args == []


def test_docker_that_is_null_comes_back_by_a_variable(load_config: Load) -> None:
    config = load_config("backends: {vllm: {docker: null}}", LLAMACTL_VLLM_DOCKER_ENABLED="1")
    assert config.backends.vllm.docker is not None
    assert config.backends.vllm.docker.image == "vllm/vllm-openai:latest"
    assert config.origin(("backends", "vllm", "docker", "image")) == "default"


def test_later_name_of_the_instances_directory(load_config: Load) -> None:
    config = load_config("instances: {instances_dir: /i}")
    assert config.instances.configs_dir == Path("/i")
    assert config.config_warnings == ()


def test_underscore_does_for_the_hyphen(load_config: Load) -> None:
    assert load_config("backends: {llama_cpp: {command: x}}").backends.llama_cpp.command == "x"


@pytest.mark.parametrize(
    ("yaml", "warning"),
    [
        ("sever: {port: 1}", "sever is unknown and ignored; did you mean server?"),
        ("server: {prot: 1}", "server.prot is unknown and ignored; did you mean port?"),
        ("port: 1", "port is unknown and ignored; did you mean server.port?"),
        ("instances: {lru: 1}", "instances.lru is unknown and ignored"),
        ("1: 2", "1 is unknown and ignored"),
        ("null: 2", " is unknown and ignored"),
        ('"a\\nb": 2', "a\\nb is unknown and ignored"),
        (
            "backends: {llamacpp: {}}",
            "backends.llamacpp is unknown and ignored; did you mean llama-cpp?",
        ),
        ("nodes: {w: {adress: x}}", "nodes.w.adress is unknown and ignored; did you mean address?"),
        (
            "backends: {mlx: {docker: {}}}",
            "backends.mlx.docker is ignored: MLX does not run in a container",
        ),
        ("auth: {oidc: {}}", "auth.oidc is ignored: login by OpenID Connect is not supported"),
        (
            "backends: {custom: {}}",
            "backends.custom is ignored: backends are added in code (instances/backends)",
        ),
    ],
)
def test_unknown_key_is_a_warning(
    load_config: Load, tmp_path: Path, yaml: str, warning: str
) -> None:
    assert load_config(yaml).config_warnings == (f"{tmp_path}/llamactl.yaml: {warning}",)


def test_warnings_come_with_errors_too(refuse: Refuse) -> None:
    error = refuse("sever: {port: 1}\nserver: {port: x}")
    assert "did you mean server?" in error.warnings[0]


def test_inference_keys_are_said_to_do_nothing(load_config: Load) -> None:
    (warning,) = load_config("auth: {inference_keys: [hunter2]}").config_warnings
    assert "auth.inference_keys is ignored" in warning
    assert "hunter2" not in warning


def test_merge_keys_and_anchors_work(load_config: Load) -> None:
    config = load_config(
        "x-base: &base {command: one, args: [a]}\n"
        "backends:\n  llama-cpp: {<<: *base, command: two}\n  vllm: {<<: *base}\n"
    )
    assert config.backends.llama_cpp.command == "two"
    assert (config.backends.vllm.command, config.backends.vllm.args) == ("one", ["a"])


def test_merge_of_a_merge_is_no_duplicate(load_config: Load) -> None:
    config = load_config(
        "x: {y: {z: &b {<<: &a {command: one}, command: two}}}\nbackends: {vllm: {<<: *b}}\n"
    )
    assert config.backends.vllm.command == "two"


# -- files that are no configuration --------------------------------------------------------------


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("- a\n", ": the file is a list, but must be a mapping of keys to values"),
        ("hello", ": the file is a single value, but must be a mapping of keys to values"),
        ("server: 5", ": server is a single value, but must be a mapping of keys to values"),
        ("server: []", ": server is a list, but must be a mapping of keys to values"),
        ("server:\n  port: 1\n host: x\n", ", line 3: is not valid YAML: "),
        ("a: [1, 2\nb: 3", ", line 2: is not valid YAML: "),
        ("server:\n\tport: 1", ", line 2: is not valid YAML: "),
        ("a: 1\n---\nb: 2", ", line 2: is not valid YAML: "),
        ("a: *nowhere", ", line 1: is not valid YAML: found undefined alias"),
        ("a: !!python/object/apply:os.system [x]", ", line 1: is not valid YAML: "),
        ("server: {port: 1, port: 2}", ", line 1: is not valid YAML: the key 'port' comes twice"),
        ("{[a]: b}", ", line 1: is not valid YAML: found unhashable key"),
        ('a: "\\UFFFFFFFF"', ": is not valid YAML: an escape that is no character"),
        (b"server: {host: a\0b}", ": is not valid YAML: "),
        (b"server: {host: \xff}", ": is not valid YAML: "),
        (b"\xff\xfe\x00\xd8", ": is not valid YAML: "),
        ('server: {host: "a\\0b"}', ": server.host has a NUL character, which is not allowed"),
        ('backends: {vllm: {args: ["\\0"]}}', ": backends.vllm.args has a NUL character"),
        ('backends: {vllm: {environment: {"\\0": x}}}', ": backends.vllm.environment has a NUL"),
        (
            "backends: {llama-cpp: {docker: }, llama_cpp: {docker: {enabled: 1}}}",
            ": backends.llama-cpp comes twice, also under its other name",
        ),
        ("[" * 5000, ": is nested too deeply"),
        ("#" * (1 << 20) + "\n", ": is too large, at most 1048576 bytes are allowed"),
    ],
)
def test_broken_file_is_one_line_with_the_place(
    refuse: Refuse, tmp_path: Path, yaml: str | bytes, message: str
) -> None:
    error = refuse(yaml)
    assert len(error.lines) == 1
    assert str(error).startswith(f"{tmp_path}/llamactl.yaml{message}")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("value", ["[{}]", "{{<<: [{}]}}"])
@pytest.mark.parametrize("top", ["server", "unknown", "auth", "nodes"])
def test_yaml_bomb_does_no_harm(tmp_path: Path, value: str, top: str) -> None:
    lines = ["a0: &a0 {k: v}" if "<<" in value else "a0: &a0 [x]"]
    for level in range(1, 30):
        aliases = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} {value.format(aliases)}")
    (tmp_path / "llamactl.yaml").write_text("\n".join([*lines, f"{top}: *a29"]))
    with pytest.raises(ConfigError, match="too many aliases"):
        load({"HOME": str(tmp_path)}, tmp_path, backends=config_sections())


@pytest.mark.timeout(10)
def test_yaml_bomb_below_the_limit_is_not_printed(refuse: Refuse) -> None:
    lines = ["a0: &a0 [x, x, x]"]
    for level in range(1, MOST_ALIASES // 3):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 3)}]")
    error = refuse("\n".join([*lines, f"server: {{port: *a{MOST_ALIASES // 3 - 1}}}"]))
    assert len(str(error)) < 1000


def test_list_that_holds_itself_does_no_harm(refuse: Refuse, load_config: Load) -> None:
    assert len(str(refuse("server: {port: &a [*a]}"))) < 1000
    assert len(refuse("backends: {vllm: {args: &a [*a]}}").lines) == 1
    assert load_config("x: &a {b: *a}").server.port == 8080


def test_tags_that_are_written_out_are_texts_too(load_config: Load, refuse: Refuse) -> None:
    assert load_config("server: {port: !!int 81, host: !!timestamp x}").server.port == 81
    assert "server.port is 'x'" in str(refuse("server: {port: !!int x}"))


def test_section_that_holds_itself_does_no_harm(load_config: Load) -> None:
    config = load_config("server: &a {port: 1, server: *a}")
    assert config.server.port == 1


# -- ${VARIABLE} ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "environment"),
        ("x${A}y${D}", "xenvironmentydotenv"),
        ("${NOPE:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("x${EMPTY}", "x"),
        ("x${NOPE:-}", "x"),
        ("${A:-default}", "environment"),
        ("${BOTH}", "environment"),
        ("${NOPE:-a:-b $x}", "a:-b $x"),
        ("$A", "$A"),
        ("$${A}", "$environment"),
        ("${1}", "${1}"),
        ("${A", "${A"),
        ("${NESTED}", "${A}"),
    ],
)
def test_references_expand(load_config: Load, text: str, expected: str) -> None:
    config = load_config(
        f"server: {{host: '{text}'}}",
        dotenv="D=dotenv\nBOTH=dotenv\n",
        A="environment",
        BOTH="environment",
        EMPTY="",
        NESTED="${A}",
    )
    assert config.server.host == expected


def test_references_expand_into_every_kind_of_value(load_config: Load) -> None:
    config = load_config(
        "server: {port: '${P}', enable_swagger: '${B}', allowed_origins: '${L}'}\n"
        "auth: {management_keys: ['${K}', '${NOPE:-}']}\n"
        "instances: {port_range: ['${P}', '${Q:-9999}']}\n"
        "backends: {vllm: {environment: {T: '${K}'}, args: '${ARGS}'}}\n"
        "nodes: {w: {address: 'http://${H}', api_key: '${K}'}}\n"
        "database: {url: '${NOPE:-}'}\ndata_dir: '${HOME}/d'\n",
        P="81",
        B="false",
        L="a,b",
        K="key",
        ARGS="serve x",
        H="h",
    )
    assert (config.server.port, config.server.enable_swagger) == (81, False)
    assert config.server.allowed_origins == ["a", "b"]
    assert [key.get_secret_value() for key in config.auth.management_keys] == ["key"]
    assert config.instances.port_range == (81, 9999)
    assert config.backends.vllm.environment == {"T": "key"}
    assert config.backends.vllm.args == ["serve", "x"]
    assert config.nodes["w"].address == "http://h"
    assert config.database.url is None
    assert config.data_dir.name == "d"


def test_reference_to_nothing_names_key_and_variable(refuse: Refuse, tmp_path: Path) -> None:
    error = refuse("auth: {management_keys: ['${NOPE}']}\nserver: {host: '${ALSO}'}")
    assert error.lines == (
        f"{tmp_path}/llamactl.yaml: auth.management_keys needs the variable NOPE, which is not set "
        "(${NOPE:-default} would do without it)",
        f"{tmp_path}/llamactl.yaml: server.host needs the variable ALSO, which is not set "
        "(${ALSO:-default} would do without it)",
    )


def test_references_in_keys_and_unknown_values_stay(load_config: Load) -> None:
    config = load_config("x: '${NOPE}'\nbackends: {vllm: {environment: {'${NOPE}': a}}}")
    assert config.backends.vllm.environment == {"${NOPE}": "a"}


# -- .env -----------------------------------------------------------------------------------------


def test_dotenv_notations(load_config: Load) -> None:
    config = load_config(
        dotenv="# comment\nexport LLAMACTL_PORT=81\r\n\nLLAMACTL_HOST='a host' # c\n"
        'LLAMACTL_LOCAL_NODE="${HOME}x"\nBARE\nOTHER=1\nLLAMACTL_MANAGEMENT_KEYS=ключ\n'
    )
    assert config.server.port == 81
    assert config.server.host == "a host"
    assert config.local_node == "${HOME}x"  # only the YAML file expands
    assert config.auth.management_keys[0].get_secret_value() == "ключ"


def test_dotenv_is_read_from_the_working_directory_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LLAMACTL_PORT=81")
    below = tmp_path / "below"
    below.mkdir()
    assert load({"HOME": str(tmp_path)}, below, backends=config_sections()).server.port == 8080


def test_dotenv_leaves_the_process_environment_alone(load_config: Load) -> None:
    load_config(dotenv="LLAMACTL_TEST_LEAK=1")
    assert "LLAMACTL_TEST_LEAK" not in os.environ


def test_bad_value_in_dotenv_names_file_and_variable(refuse: Refuse, tmp_path: Path) -> None:
    assert str(refuse(dotenv="LLAMACTL_PORT=x")).startswith(
        f"{tmp_path}/.env: LLAMACTL_PORT: server.port is 'x', but must be"
    )


def test_unknown_name_in_dotenv_is_a_warning(load_config: Load, tmp_path: Path) -> None:
    assert load_config(dotenv="LLAMACTL_PROT=1").config_warnings == (
        f"{tmp_path}/.env: LLAMACTL_PROT is unknown and ignored; did you mean LLAMACTL_PORT?",
    )


def test_line_that_is_no_assignment(load_config: Load, refuse: Refuse, tmp_path: Path) -> None:
    # It should stop for a line that means us, and go on for another program's.
    config = load_config(dotenv="LLAMACTL_PORT=81\nwhat is 'this\n")
    assert config.server.port == 81
    assert config.config_warnings == (f"{tmp_path}/.env, line 2: must be NAME=value",)
    error = refuse(dotenv="A=1\nLLAMACTL_MANAGEMENT_KEYS='hunter2\n")
    assert str(error) == f"{tmp_path}/.env, line 2: must be NAME=value"


def test_dotenv_must_be_text(refuse: Refuse) -> None:
    assert "must be UTF-8 text (byte 2 is not)" in str(refuse(dotenv=b"A=\xff"))
    assert "NUL character" in str(refuse(dotenv=b"LLAMACTL_HOST=a\0b"))


def test_dotenv_directory_is_ignored_with_a_warning(load_config: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert load_config().config_warnings == (f"{tmp_path}/.env is ignored: Is a directory",)


# -- anything at all ------------------------------------------------------------------------------

anything = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def check_that_it_loads_or_says_why(tmp_path: Path, environ: dict[str, str]) -> None:
    try:
        config = load({"HOME": str(tmp_path), **environ}, tmp_path, backends=config_sections())
        told = config.config_warnings
    except ConfigError as error:
        told = (*error.lines, *error.warnings, *([] if error.lines else ["\0"]))
    for line in told:
        assert line.isprintable()
        assert len(line) < 1000


@anything
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_as_a_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "llamactl.yaml").write_bytes(content)
    check_that_it_loads_or_says_why(tmp_path, {})


LEAVES = (
    st.none()
    | st.sampled_from(["~", "1", "true", "x", "[]", "0", "-1", "5m", '"\\0"'])
    | (
        st.text(alphabet=st.characters(codec="utf-8"), max_size=8).map(
            lambda text: '"' + re.sub(r'[\\"\W]', lambda m: f"\\U{ord(m[0]):08x}", text) + '"'
        )
    )
)
KEYS = [
    "llama_cpp",
    "instances_dir",
    *{part.replace("_cpp", "-cpp") for key in VARIABLES.values() for part in key.split(".")},
]


def as_flow(tree: object) -> str:
    """A tree of YAML snippets as one flow-style document."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {as_flow(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(as_flow(item) for item in tree) + "]"
    return "" if tree is None else str(tree)


TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.dictionaries(st.sampled_from([*KEYS, "nodes", "w"]), inner, max_size=5)
        | st.lists(inner.filter(lambda item: item is not None), max_size=3)
    ),
    max_leaves=12,
)


@anything
@given(tree=st.dictionaries(st.sampled_from([*AppConfig.model_fields]), TREES))
def test_any_tree_as_a_file(tmp_path: Path, tree: dict[str, object]) -> None:
    (tmp_path / "llamactl.yaml").write_text(as_flow(tree), encoding="utf-8")
    check_that_it_loads_or_says_why(tmp_path, {})


@anything
@given(
    environ=st.dictionaries(
        st.sampled_from([*VARIABLES, "LLAMACTL_CONFIG_PATH"]), st.text(max_size=20), max_size=6
    )
)
def test_any_text_in_the_environment(tmp_path: Path, environ: dict[str, str]) -> None:
    check_that_it_loads_or_says_why(tmp_path, environ)


def test_bytes_that_are_no_text_in_the_environment(refuse: Refuse) -> None:
    # os.environ gives them as lone surrogates.
    assert "LLAMACTL_HOST: server.host is " in str(refuse(LLAMACTL_HOST="a\udcff"))
