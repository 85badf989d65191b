"""The configuration file: its place, its keys, and references to variables in it."""

from __future__ import annotations

import errno
import io
import os
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from instances.backends.registry import config_sections
from llamactl.config import ConfigError, load

from .conftest import Load, Refuse

# -- place of the file -----------------------------------------------------------------------------


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


def test_a_fifo_is_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("llamactl.yaml", ".env"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "config.yaml").write_text("server: {port: 5}")
    config = load({"HOME": str(tmp_path)}, tmp_path, backends=config_sections())
    assert config.server.port == 5
    assert set(config.config_warnings) == {
        f"{tmp_path}/{name} is ignored: it is a FIFO" for name in ("llamactl.yaml", ".env")
    }
    environ = {"HOME": str(tmp_path), "LLAMACTL_CONFIG_PATH": str(tmp_path / "llamactl.yaml")}
    with pytest.raises(ConfigError, match="can't be read: it is a FIFO"):
        load(environ, tmp_path, backends=config_sections())


def test_the_end_of_a_shells_pipe_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"server: {port: 5}")
    os.close(writing)
    environ = {"HOME": str(tmp_path), "LLAMACTL_CONFIG_PATH": f"/dev/fd/{reading}"}
    assert load(environ, tmp_path, backends=config_sections()).server.port == 5
    os.close(reading)


def test_explicit_path_with_a_nul_is_an_error(refuse: Refuse) -> None:
    assert "LLAMACTL_CONFIG_PATH has a NUL character" in str(refuse(LLAMACTL_CONFIG_PATH="a\0"))


@pytest.mark.parametrize("path", ["{tmp}/my.yaml", "my.yaml", "~/my.yaml"])
def test_an_explicit_path_excludes_the_usual_places(
    load_config: Load, tmp_path: Path, path: str
) -> None:
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


# -- keys ------------------------------------------------------------------------------------------

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
def test_an_empty_file_gives_the_defaults(load_config: Load, yaml: str) -> None:
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


def test_an_underscore_may_replace_the_hyphen(load_config: Load) -> None:
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


def test_configured_inference_keys_are_a_warning(load_config: Load) -> None:
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


# -- ${VARIABLE} -----------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("yaml", "path", "expected"),
    [
        ("auth: {management_keys: [ ${X} ]}", ("auth", "management_keys"), ["v"]),
        ("auth: {management_keys: [${X},${Y}]}", ("auth", "management_keys"), ["v", "w"]),
        ("server:\n  port: ${P}", ("server", "port"), 81),
        ("server: {port: ${P}, host: ${X}}", ("server", "port"), 81),
        ("server: {host: ${X}.${Y:-z}}", ("server", "host"), "v.w"),
        ("server: {host: ${NOPE:-z}}", ("server", "host"), "z"),
        ("server:\n  host: ${NOPE:-}\n", ("server", "host"), "127.0.0.1"),
        ("server:\n  host: ${EMPTY}\n", ("server", "host"), "127.0.0.1"),
        ("server:\n  host: ${X} # ${NOPE} is not needed\n", ("server", "host"), "v"),
        ("server:\n  host: |-\n    ${X}\n", ("server", "host"), "v"),
        ("${S}: {port: ${P}}", ("server", "port"), 81),
        ("instances: {port_range: ${R}}", ("instances", "port_range"), (81, 99)),
        ("instances: {port_range: ${NOPE:-[81, 99]}}", ("instances", "port_range"), (81, 99)),
        ("server: {allowed_origins: ${L}}", ("server", "allowed_origins"), ["a", "b"]),
        ("server: {allowed_origins: ${NOPE:-[a, b]}}", ("server", "allowed_origins"), ["a", "b"]),
        ("instances: {group_limits: ${NOPE:-{a: 1}}}", ("instances", "group_limits"), {"a": 1}),
    ],
)
def test_references_stand_anywhere_in_the_text(
    load_config: Load, yaml: str, path: tuple[str, str], expected: object
) -> None:
    environment = {"X": "v", "Y": "w", "P": "81", "EMPTY": "", "S": "server"}
    config = load_config(yaml, R="[81, 99]", L='["a", "b"]', **environment)
    found = getattr(getattr(config, path[0]), path[1])
    if path[1] == "management_keys":
        found = [key.get_secret_value() for key in found]
    assert found == expected
    assert config.config_warnings == ()


@pytest.mark.parametrize(
    "value",
    ["a: b", "a #b", "'a", '"a', "[a", "{a}", "*a", "&a", "!a", "a\\n", "- a", "%a", "a]", "${X}"],
)
@pytest.mark.parametrize("quoted", ["${V}", "'${V}'", '"${V}"'])
def test_a_value_takes_no_part_in_the_syntax(load_config: Load, value: str, quoted: str) -> None:
    yaml = f"backends:\n  vllm:\n    environment: {{A: {quoted}, B: b}}\nserver: {{port: 81}}\n"
    config = load_config(yaml, V=value)
    assert config.backends.vllm.environment == {"A": value, "B": "b"}
    assert (config.server.port, config.config_warnings) == (81, ())


def test_a_reference_to_nothing_stays_with_a_warning_that_names_key_and_variable(
    load_config: Load, tmp_path: Path
) -> None:
    config = load_config("server: {host: ${ALSO}}\ninstances: {group_limits: {${G}: 1}}")
    assert config.server.host == "${ALSO}"
    assert config.config_warnings == (
        f"{tmp_path}/llamactl.yaml: server.host has ${{ALSO}}, which stays as it is: the variable"
        " ALSO is not set (${ALSO:-default} gives a default)",
        f"{tmp_path}/llamactl.yaml: instances.group_limits has ${{G}}, which stays as it is: the"
        " variable G is not set (${G:-default} gives a default)",
    )


@pytest.mark.parametrize(
    "keys", ["[ ${NOPE}, mine ]", "'${NOPE},mine'", "[mine, 'x${NOPE}']", "${NOPE}"]
)
def test_a_management_key_of_an_unset_variable_is_left_out(load_config: Load, keys: str) -> None:
    # It should not be a key that anyone can guess.
    config = load_config(f"auth: {{management_keys: {keys}}}")
    found = [key.get_secret_value() for key in config.auth.management_keys]
    assert found == (["mine"] if "mine" in keys else [])
    (warning,) = config.config_warnings
    assert "auth.management_keys has a key with ${NOPE}, which is left out" in warning


def test_an_error_with_an_unset_variable_comes_with_its_warning(refuse: Refuse) -> None:
    error = refuse("server: {port: ${NOPE}}")
    assert "server.port is '${NOPE}', but must be a port number" in str(error)
    assert "the variable NOPE is not set" in error.warnings[0]


def test_a_key_that_comes_twice_is_found_behind_a_reference(refuse: Refuse) -> None:
    assert "the key 'port' comes twice" in str(refuse("server: {port: 1, ${P}: 2}", P="port"))


def test_references_in_unknown_values_need_no_variable(load_config: Load) -> None:
    (warning,) = load_config("x: '${NOPE}'").config_warnings
    assert "x is unknown" in warning
