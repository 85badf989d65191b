"""Variables of the environment and of ``.env``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from instances.backends.registry import config_sections
from llamactl.config import AppConfig, load
from llamactl.config.variables import other_variables_with, variables_with

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
    "LLAMACTL_REQUESTS_KEEP": ("requests.keep", "0", 0),
    "LLAMACTL_USAGE_RETENTION_DAYS": ("usage.retention_days", "30", 30),
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
    "LLAMACTL_PUBLIC_URL": ("server.public_url", "https://a/b/", "https://a/b"),
    "LLAMACTL_BACKEND_UI_PORT": ("server.backend_ui_port", "0", 0),
    "LLAMACTL_BACKEND_UI_URL": ("server.backend_ui_url", "https://a/b/", "https://a/b"),
    "LLAMACTL_WEB_PROCESSES": ("server.web_processes", "4", 4),
    "LLAMACTL_MAX_BODY_MIB": ("server.max_body_mib", "1", 1),
    "LLAMACTL_UPSTREAM_FIRST_BYTE_TIMEOUT": ("server.upstream_first_byte_timeout", "5m", 300.0),
    "LLAMACTL_UPSTREAM_IDLE_TIMEOUT": ("server.upstream_idle_timeout", "90", 90.0),
    "LLAMACTL_KEEPALIVE_AFTER": ("server.keepalive_after", "30s", 30.0),
    "LLAMACTL_GROUP_LIMITS": ("instances.group_limits", "big=1,small=-1", {"big": 1, "small": -1}),
    "LLAMACTL_LOG_ROTATION_BACKUPS": ("instances.log_rotation_backups", "7", 7),
    "LLAMACTL_START_TIMEOUT": ("instances.start_timeout", "10m", 600.0),
    "LLAMACTL_DRAIN_TIMEOUT": ("instances.drain_timeout", "0", 0.0),
    "LLAMACTL_OPERATOR_STOP_HOLD": ("instances.operator_stop_hold", "1m", 60.0),
    "LLAMACTL_STOP_TIMEOUT": ("instances.stop_timeout", "2.5", 2.5),
    "LLAMACTL_SWAP_AFTER": ("instances.swap_after", "0", 0.0),
    "LLAMACTL_LOADS_AT_BOOT": ("instances.loads_at_boot", "2", 2),
    "LLAMACTL_UNHEALTHY_TIMEOUT": ("instances.unhealthy_timeout", "5m", 300.0),
    "LLAMACTL_ORPHAN_GRACE": ("instances.orphan_grace", "60s", 60.0),
    "LLAMACTL_KEEP_BACKENDS": ("instances.keep_backends", "0", False),
    "LLAMACTL_CHECK_LISTENER": ("instances.check_listener", "0", False),
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


def test_variables_of_a_kubernetes_service_are_ignored(load_config: Load) -> None:
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


def test_variables_without_a_field_are_known(load_config: Load) -> None:
    config = load_config(LLAMACTL_LLAMACPP_DOWNLOAD_TIMEOUT="1h", LLAMACTL_CONFIG_PATH="")
    (warning,) = config.config_warnings
    assert "LLAMACTL_LLAMACPP_DOWNLOAD_TIMEOUT is ignored" in warning
    assert not set(OTHER_VARIABLES) & set(VARIABLES)


def test_bad_variable_names_itself_and_the_key(refuse: Refuse) -> None:
    assert str(refuse(LLAMACTL_PORT="70000")) == (
        "LLAMACTL_PORT: server.port is '70000', but must be a port number from 1 to 65535"
    )


# -- .env ------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "name", ["LLAMACTL_DATA_DIRECTORY", "LLAMACTL_LLAMACPP_COMMAND", "LLAMACTL_VLLM_ENV", "HOME"]
)
def test_bytes_of_a_variable_that_are_no_text_are_refused(refuse: Refuse, name: str) -> None:
    # As os.environ reads the byte 0xff; the API, the database and the banner could not take it.
    text = str(refuse(**{name: "/tmp/A=\udcff"}))
    assert "has bytes that are not UTF-8" in text
    assert text.isprintable()


def test_dotenv_directory_is_ignored_with_a_warning(load_config: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert load_config().config_warnings == (f"{tmp_path}/.env is ignored: Is a directory",)


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("home/.config/llamactl/.env", ""),
        ("conf/.env", "{tmp}/conf/my.yaml"),
        ("conf/.env", "conf/my.yaml"),
        ("home/conf/.env", "~/conf/my.yaml"),
    ],
)
def test_dotenv_is_found_where_the_go_program_looks(
    load_config: Load, tmp_path: Path, place: str, path: str
) -> None:
    for directory in ("conf", "home/conf", "home/.config/llamactl"):
        (tmp_path / directory).mkdir(parents=True)
        (tmp_path / directory / "my.yaml").write_text("data_dir: ${D}")
    (tmp_path / place).write_text("LLAMACTL_HOST=found\nD=/d\n")
    named = {"LLAMACTL_CONFIG_PATH": path.format(tmp=tmp_path)} if path else {}
    config = load_config(None if path else "data_dir: ${D}", **named)
    assert (config.server.host, config.data_dir) == ("found", Path("/d"))
    assert config.origin(("server", "host")).endswith(f"{place}: LLAMACTL_HOST")


def test_the_first_dotenv_alone_is_read(load_config: Load, tmp_path: Path) -> None:
    other = tmp_path / "home/.config/llamactl"
    other.mkdir(parents=True)
    (other / ".env").write_text("LLAMACTL_PORT=82\n")
    assert load_config(dotenv="LLAMACTL_HOST=here").server.port == 8080


@pytest.mark.parametrize("name", ["LLAMACTL_LLAMACPP_DOCKER_ARGS", "LLAMACTL_VLLM_DOCKER_ARGS"])
def test_docker_arguments_are_read_like_a_shell_does(load_config: Load, name: str) -> None:
    config = load_config(**{name: """run -v "/my models:/m" -e 'A=b c' --name a\\ b"""})
    section = config.backends.vllm if "VLLM" in name else config.backends.llama_cpp
    assert section.docker is not None
    assert section.docker.args == ["run", "-v", "/my models:/m", "-e", "A=b c", "--name", "a b"]


@pytest.mark.parametrize(
    "name", ["LLAMACTL_LLAMACPP_ARGS", "LLAMACTL_VLLM_ARGS", "LLAMACTL_MLX_ARGS"]
)
def test_an_open_quote_in_arguments_is_an_error(refuse: Refuse, name: str) -> None:
    error = refuse(**{name: "--a 'b"})
    assert str(error).startswith(f"{name}: backends.")
    assert "a quote has to be closed" in str(error)
