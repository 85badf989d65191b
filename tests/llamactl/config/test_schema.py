"""Defaults, and the values that each type accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Load, Refuse


def test_defaults_are_the_seeds_except_that_nothing_listens_in_public(
    load_config: Load, tmp_path: Path
) -> None:
    config = load_config()
    data_dir = tmp_path / "home/.local/share/llamactl"
    assert config.server.host == "127.0.0.1"
    assert config.server.enable_swagger is True
    assert (config.server.port, config.server.allowed_origins) == (8080, ["*"])
    assert config.data_dir == data_dir
    assert config.instances.port_range == (8000, 9000)
    assert config.instances.configs_dir == data_dir / "instances"
    assert config.instances.logs_dir == data_dir / "logs"
    assert (config.instances.max_instances, config.instances.max_running_instances) == (-1, -1)
    assert config.instances.on_demand_start_timeout == 120
    assert (config.instances.swap_after, config.instances.loads_at_boot) == (10.0, 1)
    assert config.instances.unhealthy_timeout == 60.0
    assert config.database.path == data_dir / "llamactl.db"
    assert config.database.connection_max_lifetime == 300.0
    assert config.database.url is None
    assert config.redis.url is None
    assert config.auth.require_inference_auth is True
    assert config.auth.require_management_auth is True
    assert config.backends.llama_cpp.command == "llama-server"
    assert (config.backends.vllm.command, config.backends.vllm.args) == ("vllm", ["serve"])
    assert config.backends.mlx.command == "mlx_lm.server"
    assert config.backends.mlx.docker is None
    assert list(config.nodes) == ["main"]
    assert config.config_warnings == ()


def test_docker_caches_and_directories_follow_the_data_directory(load_config: Load) -> None:
    config = load_config("data_dir: /srv/llama\ninstances: {logs_dir: mine, configs_dir: /etc/i}\n")
    llama_cpp, vllm = config.backends.llama_cpp.docker, config.backends.vllm.docker
    assert llama_cpp is not None
    assert llama_cpp.args[-2:] == ["-v", "/srv/llama/llama.cpp:/root/.cache/llama.cpp"]
    assert vllm is not None
    assert vllm.args[-2:] == ["-v", "/srv/llama/huggingface:/root/.cache/huggingface"]
    assert config.instances.logs_dir == Path("/srv/llama/mine")
    assert config.instances.configs_dir == Path("/etc/i")


def test_docker_arguments_that_are_set_are_left_alone(load_config: Load) -> None:
    yaml = "backends: {llama-cpp: {docker: {args: [run, '{data_dir}']}}, vllm: {docker: {args: }}}"
    config = load_config(yaml)
    assert config.backends.llama_cpp.docker is not None
    assert config.backends.llama_cpp.docker.args == ["run", "{data_dir}"]
    assert config.backends.llama_cpp.docker.image == "ghcr.io/ggml-org/llama.cpp:server"
    assert config.backends.vllm.docker is not None
    assert config.backends.vllm.docker.args == []


def test_relative_data_directory_is_below_the_working_directory(
    load_config: Load, tmp_path: Path
) -> None:
    assert load_config("data_dir: ./d").data_dir == tmp_path / "d"


@pytest.mark.parametrize("key", ["data_dir", "logs_dir", "command", "cache_dir"])
def test_tilde_means_home(load_config: Load, tmp_path: Path, key: str) -> None:
    config = load_config(
        "data_dir: ~/x\ninstances: {logs_dir: ~/x}\n"
        "backends: {llama-cpp: {command: ~/x, cache_dir: ~/x}}\n"
    )
    values = {
        "data_dir": config.data_dir,
        "logs_dir": config.instances.logs_dir,
        "command": config.backends.llama_cpp.command,
        "cache_dir": config.backends.llama_cpp.environment["LLAMA_CACHE"],
    }
    assert str(values[key]) == str(tmp_path / "home/x")


def test_cache_directory_does_not_override_the_environment(load_config: Load) -> None:
    yaml = "backends: {llama-cpp: {cache_dir: /a, environment: {LLAMA_CACHE: /b}}}"
    assert load_config(yaml).backends.llama_cpp.environment == {"LLAMA_CACHE": "/b"}


@pytest.mark.parametrize(
    ("yaml", "cache"),
    [
        ("data_dir: /d", "/d/llama.cpp:/root/.cache/llama.cpp"),
        ("backends: {llama-cpp: {cache_dir: /a}}", "/a:/a"),
        ("{data_dir: /d, backends: {llama-cpp: {cache_dir: c}}}", "/d/c:/d/c"),
        ("backends: {llama-cpp: {cache_dir: /a, environment: {LLAMA_CACHE: /b}}}", "/b:/b"),
        ("backends: {llama-cpp: {cache_dir: /a, docker: {args: [-v, 'x:/y']}}}", "x:/y"),
    ],
)
def test_a_container_finds_the_cache_that_its_environment_names(
    load_config: Load, yaml: str, cache: str
) -> None:
    section = load_config(yaml).backends.llama_cpp
    assert section.docker is not None
    assert section.docker.args[-1] == cache
    named = section.environment.get("LLAMA_CACHE")
    assert named is None or cache in (f"{named}:{named}", "x:/y")


def test_the_local_node_is_listed_once_with_its_settings_in_the_file(load_config: Load) -> None:
    config = load_config("local_node: w1\nnodes: {w1: {address: 'http://w1:8080/'}, w2: }")
    assert {name: node.address for name, node in config.nodes.items()} == {
        "w1": "http://w1:8080",
        "w2": "",
    }


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True", "yes", "on", "Y"])
def test_true_as_go_and_yaml_say_it(load_config: Load, text: str) -> None:
    assert load_config(f"server: {{enable_swagger: {text}}}").server.enable_swagger is True
    assert load_config(LLAMACTL_LOG_ROTATION_COMPRESS=text).instances.log_rotation_compress is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False", "no", "off", "N"])
def test_false_as_go_and_yaml_say_it(load_config: Load, text: str) -> None:
    assert load_config(f"server: {{enable_swagger: {text}}}").server.enable_swagger is False
    assert load_config(LLAMACTL_KEEP_BACKENDS=text).instances.keep_backends is False


@pytest.mark.parametrize(
    "text", ["[7000, 7100]", "['7000', '7100']", "7000-7100", "7000 - 7100", "' 7000 , 7100 '"]
)
def test_port_range_notations(load_config: Load, text: str) -> None:
    config = load_config(f"instances:\n  port_range: {text}\n")
    assert config.instances.port_range == (7000, 7100)


@pytest.mark.parametrize(
    "text",
    [
        *("9000-8000", "8000-8000", "8000", "0-9000", "8000-65536", "8000-9000-10000", "[8000]"),
        *("-1000--500", "a-b", "[]", "{}", "[[8000], 9000]", "true", "[1.5, 9]", "99999999999-1"),
    ],
)
def test_port_range_is_refused(refuse: Refuse, text: str) -> None:
    error = refuse(f"instances:\n  port_range: {text}\n")
    assert len(error.lines) == 1
    assert "instances.port_range" in error.lines[0]
    assert "the first below the second, such as [8000, 9000]" in error.lines[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("5m", 300.0), ("1h30m", 5400.0), ("90", 90.0), ("1.5s", 1.5), ("500ms", 0.5)),
        *((".5h", 1800.0), ("250us", 0.00025), ("250µs", 0.00025), ("300000000000", 300.0)),
    ],
)
def test_durations(load_config: Load, text: str, seconds: float) -> None:
    config = load_config(f"database: {{connection_max_lifetime: {text}}}")
    assert config.database.connection_max_lifetime == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["0", "0s", "-5m", "5 m", "5x", "m", "nan", "inf", "1e999", "9999h", "true", "'٣s'", "[]"],
)
def test_timeouts_are_positive_and_finite(refuse: Refuse, text: str) -> None:
    error = refuse(f"instances: {{start_timeout: {text}}}")
    assert "instances.start_timeout is" in str(error)
    assert "must be a duration (seconds, or a form such as 90s, 5m or 1h30m) above 0" in str(error)


@pytest.mark.parametrize(
    ("key", "text", "rule"),
    [
        ("server.port", "0", "a port number from 1 to 65535"),
        ("server.port", "65536", "a port number from 1 to 65535"),
        ("server.port", "http", "a port number from 1 to 65535"),
        ("server.port", "true", "a port number from 1 to 65535"),
        ("server.port", "'80 80'", "a port number from 1 to 65535"),
        ("server.port", "9" * 5000, "a port number from 1 to 65535"),
        ("server.port", "[80]", "a port number from 1 to 65535"),
        ("server.port", "!!bool yes", "a port number from 1 to 65535"),
        ("server.host", "''", "a string that is not empty"),
        ("server.host", "[a]", "a string that is not empty"),
        ("server.enable_swagger", "maybe", "true or false"),
        ("server.web_processes", "0", "a whole number from 1"),
        ("server.max_body_mib", "-1", "a whole number from 1"),
        ("server.allowed_origins", "{a: b}", "a list of strings"),
        ("instances.max_instances", "-2", "a whole number from 0, or -1 for no limit"),
        ("instances.max_instances", "1.5", "a whole number from 0, or -1 for no limit"),
        ("instances.default_max_restarts", "-1", "a whole number from 0"),
        ("instances.default_restart_delay", "2147483648", "a whole number from 0"),
        ("instances.on_demand_start_timeout", "0", "a whole number from 1"),
        ("instances.group_limits.big", "lots", "a whole number from 0"),
        (
            "instances.drain_timeout",
            "-1",
            "a duration (seconds, or a form such as 90s, 5m or 1h30m) from 0",
        ),
        (
            "instances.swap_after",
            "-1s",
            "a duration (seconds, or a form such as 90s, 5m or 1h30m) from 0",
        ),
        ("instances.loads_at_boot", "0", "a whole number from 1"),
        (
            "instances.unhealthy_timeout",
            ".inf",
            "a duration (seconds, or a form such as 90s, 5m or 1h30m) from 0",
        ),
        ("instances.logs_dir", "[a]", "a path"),
        ("data_dir", "{a: b}", "a path"),
        ("local_node", "a/b", "1 to 100 characters without spaces and slashes"),
        ("local_node", '"a\\nb"', "1 to 100 characters without spaces and slashes"),
        ("nodes.w1.address", "w1:8080", "a URL that begins with http:// or https://"),
        ("nodes.w1.address", '"http://w1\\n"', "a URL that begins with http:// or https://"),
        ("nodes.w1.address", "http://w1:http", "a URL that begins with http:// or https://"),
        ("nodes.w1.address", "'http://[::1'", "a URL that begins with http:// or https://"),
        ("backends.llama-cpp.command", "''", "a string that is not empty"),
        ("backends.vllm.docker.image", "''", "a string that is not empty"),
    ],
)
def test_bad_value_is_one_line_with_file_key_value_and_rule(
    refuse: Refuse, tmp_path: Path, key: str, text: str, rule: str
) -> None:
    yaml = f"{{{': {'.join(key.split('.'))}: {text}{'}' * len(key.split('.'))}"
    error = refuse(yaml)
    (line,) = error.lines
    assert line.startswith(f"{tmp_path}/llamactl.yaml: {key} is ")
    assert f", but must be {rule}" in line
    assert len(line) < 400


def test_several_problems_are_several_lines(refuse: Refuse) -> None:
    error = refuse("server: {port: x}\ninstances: {max_instances: y}\n", LLAMACTL_LOCAL_NODE="/")
    assert len(error.lines) == 3
    assert str(error).splitlines() == list(error.lines)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("redis.url", "http://me:hunter2@host"),
        ("database.url", "mysql://me:hunter2@host/db"),
        ("auth.management_keys", "{hunter2: hunter2}"),
        ("auth.management_keys", "[[hunter2]]"),
        ("nodes.w1.api_key", "[hunter2]"),
        ("backends.llama-cpp.environment", "[hunter2]"),
        ("backends.llama-cpp.environment", "hunter2"),
        ("backends.llama-cpp.args", "[[hunter2]]"),
        ("auth", "hunter2"),
        ("nodes", "hunter2"),
        ("nodes.w1", "hunter2"),
        ("backends.vllm.docker", "[hunter2]"),
        ("server.response_headers", '{Authorization: "hunter2\\nX: 1"}'),
        ("auth.management_keys", "*hunter2"),
        ("auth.management_keys", "!hunter2 x"),
        ("auth.management_keys", '["hunter2\\0"]'),
        ("redis.url", "'redis://[hunter2'"),
    ],
)
def test_error_never_shows_a_secret(refuse: Refuse, key: str, value: str) -> None:
    depth = key.count(".") + 1
    error = refuse(f"{{{': {'.join(key.split('.'))}: {value}{'}' * depth}")
    assert "hunter2" not in str(error)
    assert "hunter2" not in repr(error.__cause__) + repr(error.__context__)
    assert len(error.lines) == 1


@pytest.mark.parametrize("name", ["", "A=B"])
def test_names_of_variables_are_checked(refuse: Refuse, name: str) -> None:
    assert "a mapping of names to strings" in str(
        refuse(f"backends: {{vllm: {{environment: {{'{name}': x}}}}}}")
    )


def test_header_values_may_have_no_line_breaks(refuse: Refuse, load_config: Load) -> None:
    assert "without line breaks" in str(refuse('server: {response_headers: {X-A: "a\\r\\nB: c"}}'))
    config = load_config("server: {response_headers: {X-A: 'Zoë, 1'}}")
    assert config.server.response_headers == {"X-A": "Zoë, 1"}


def test_empty_keys_are_dropped(load_config: Load) -> None:
    config = load_config(
        "auth: {management_keys: ['', ' ', ' k1 ']}\nnodes: {w: {api_key: ''}}", X=""
    )
    assert [key.get_secret_value() for key in config.auth.management_keys] == ["k1"]
    assert config.nodes["w"].api_key is None
    assert load_config("auth: {management_keys: }").auth.management_keys == []


def test_repr_has_no_secrets(load_config: Load) -> None:
    config = load_config(
        "auth: {management_keys: [hunter2]}\nnodes: {w: {api_key: hunter2}}\n"
        "backends: {vllm: {environment: {HF_TOKEN: hunter2}, args: [--api-key, hunter2]}}\n"
        "redis: {url: 'redis://:hunter2@h'}\ndatabase: {url: 'postgres://u:hunter2@h/d'}\n"
    )
    assert "hunter2" not in repr(config) + str(config)


@pytest.mark.parametrize(
    ("text", "url", "origin", "prefix"),
    [
        ("https://llm.example/llm/", "https://llm.example/llm", "https://llm.example", "/llm"),
        ("https://llm.example", "https://llm.example", "https://llm.example", ""),
        ("HTTPS://LLM.example:443/", "https://llm.example", "https://llm.example", ""),
        ("http://10.0.0.1:81/a/b", "http://10.0.0.1:81/a/b", "http://10.0.0.1:81", "/a/b"),
        ("https://[::1]:8443/x/", "https://[::1]:8443/x", "https://[::1]:8443", "/x"),
        ("", "", "", ""),
    ],
)
def test_public_url_gives_origin_and_prefix(
    load_config: Load, text: str, url: str, origin: str, prefix: str
) -> None:
    server = load_config(LLAMACTL_PUBLIC_URL=text).server
    assert (server.public_url, server.public_origin, server.public_prefix) == (url, origin, prefix)
    assert server.is_public_by_https == text.lower().startswith("https")


@pytest.mark.parametrize(
    "url",
    [
        *("llm.example", "ftp://x/", "https://", "https:///llm", "//llm.example/llm"),
        *("https://me:pw@x/", "https://x/?a", "https://x/#a", "https://x/a//b", "https://x//"),
        *("https://x/../a", "https://x/a/.", "https://x/a%20b", "https://x/a b", "https://x/ä"),
        *("https://x:0y/", "https://x/a\\b", "https://x:99999/"),
    ],
)
def test_public_url_that_is_none_is_refused(refuse: Refuse, url: str) -> None:
    assert "server.public_url is" in str(refuse(LLAMACTL_PUBLIC_URL=url))
    assert "must be a URL such as https://llm.example/llm/" in str(refuse(LLAMACTL_PUBLIC_URL=url))
