"""What is executed for an instance."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from instances.backends.llama_cpp.config import LlamaCppConfig, LlamaCppDocker
from instances.backends.mlx.config import MlxConfig
from instances.backends.values import InvalidBackendOptions
from instances.backends.vllm.config import VllmConfig, VllmDocker
from instances.installation import installation_id
from instances.launch import ExecutableNotFound, Launch, build_launch, effective_api_key
from instances.options import InstanceOptions
from llamactl.config.schema import BackendConfig, DockerConfig
from tests.support.paths import DATA

VECTORS = json.loads((DATA / "parse_vectors.json").read_text(encoding="utf-8"))


def options_for(
    backend_type: str = "llama_cpp", backend_options: dict[str, object] | None = None, **more: Any
) -> InstanceOptions:
    return InstanceOptions(
        backend_type=backend_type,
        backend_options={"model": "m"} if backend_options is None else backend_options,
        nodes=["main"],
        auto_restart=True,
        max_restarts=3,
        restart_delay=5,
        on_demand_start=True,
        idle_timeout=0,
        **more,
    )


def found(command: str, path: str | None = None) -> str | None:
    """A machine on which every program is installed."""
    return command if "/" in command else f"/usr/bin/{command}"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (LlamaCppConfig(args=["--api-prefix", "/x"]), "backends.llama-cpp.args"),
        (
            LlamaCppConfig(environment={"LLAMA_ARG_API_PREFIX": "/x"}),
            "backends.llama-cpp.environment",
        ),
        (
            LlamaCppConfig(
                docker=LlamaCppDocker(enabled=True, environment={"LLAMA_ARG_SSL_KEY_FILE": "/x"})
            ),
            "backends.llama-cpp.docker.environment",
        ),
    ],
)
def test_a_config_that_moves_the_address_prevents_the_start(
    config: LlamaCppConfig, named: str
) -> None:
    with pytest.raises(InvalidBackendOptions, match=named):
        launch(config=config)


@pytest.mark.parametrize("flag", ["-e ", "-e", "--env=", "--env "])
def test_docker_arguments_that_move_the_address_prevent_the_start(flag: str) -> None:
    options = options_for(docker_enabled=True, docker_args=f"{flag}LLAMA_ARG_API_PREFIX=/x")
    with pytest.raises(InvalidBackendOptions, match="docker_args"):
        launch(options)


def test_the_arguments_of_the_config_do_not_count_for_docker() -> None:
    config = LlamaCppConfig(args=["--api-prefix", "/x"], docker=LlamaCppDocker(enabled=True))
    assert launch(config=config).container_name is not None


def nowhere(command: str, path: str | None = None) -> str | None:
    return None


def launch(
    options: InstanceOptions | None = None, config: BackendConfig | None = None, **more: Any
) -> Launch:
    settings: dict[str, Any] = {"which": found, "api_key": "derived", **more}
    return build_launch(
        instance_name="tiny",
        options=options or options_for(),
        config=config or LlamaCppConfig(),
        host="127.0.0.1",
        port=8001,
        **settings,
    )


@pytest.mark.parametrize("vector", VECTORS["command_selection"], ids=lambda v: v["name"])
def test_the_command_is_chosen_as_in_the_seed(vector: dict[str, Any]) -> None:
    backend_type = vector.get("backend_type", "llama_cpp")
    docker = DockerConfig(enabled=vector["docker_enabled_in_config"], image="image", args=["run"])
    command = vector["config_command"]
    config: BackendConfig
    if backend_type == "mlx_lm":
        config = MlxConfig(command=command)
    else:
        config = BackendConfig(command=command, docker=docker)

    launched = launch(
        options_for(
            backend_type,
            docker_enabled=vector["docker_enabled"],
            command_override=vector["command_override"],
        ),
        config,
    )

    expected = "/usr/bin/docker" if vector["expect"] == "docker" else vector["expect"]
    assert launched.argv[0] == expected


def test_a_process_gets_our_address_and_the_key_by_environment() -> None:
    launched = launch(
        options_for(environment={"A": "instance", "LLAMA_API_KEY": "lost"}),
        LlamaCppConfig(args=["--log-prefix"], environment={"A": "config", "B": "config"}),
    )

    assert launched == Launch(
        (
            *("/usr/bin/llama-server", "--log-prefix"),
            *("--model", "m", "--alias", "tiny", "--host", "127.0.0.1", "--port", "8001"),
        ),
        {"A": "instance", "B": "config", "LLAMA_API_KEY": "derived"},
        None,
    )


def test_the_operators_own_key_is_used_and_not_in_the_arguments() -> None:
    options = options_for(backend_options={"model": "m", "api_key": "sk-mine", "hf_token": "hf_x"})

    launched = launch(options)

    assert effective_api_key(options, "derived") == "sk-mine"
    assert launched.environment == {"LLAMA_API_KEY": "sk-mine", "HF_TOKEN": "hf_x"}
    assert not [word for word in launched.argv if "sk-mine" in word or "hf_x" in word]


def test_the_derived_key_is_used_otherwise() -> None:
    assert effective_api_key(options_for(), "derived") == "derived"
    assert effective_api_key(options_for("mlx_lm"), "derived") == "derived"


def test_without_any_key_the_backend_asks_for_none() -> None:
    assert launch(api_key="").environment == {}


def test_secrets_are_not_in_the_representation_of_a_launch() -> None:
    assert "derived" not in repr(launch())


def test_vllm_is_started_with_its_subcommand_and_the_model_first() -> None:
    launched = launch(options_for("vllm"), VllmConfig())

    assert launched.argv == (
        *("/usr/bin/vllm", "serve", "m"),
        *("--host", "127.0.0.1", "--port", "8001"),
    )
    assert launched.environment == {"VLLM_API_KEY": "derived"}


def test_mlx_is_given_no_key() -> None:
    launched = launch(options_for("mlx_lm"), MlxConfig())

    assert launched.argv[:3] == ("/usr/bin/mlx_lm.server", "--model", "m")
    assert launched.environment == {}


def test_a_container_gets_variables_by_name_and_its_values_stay_out_of_the_arguments() -> None:
    config = VllmConfig(
        environment={"A": "backend", "B": "backend"},
        docker=VllmDocker(
            enabled=True, image="vllm:1", args=["run", "--rm"], environment={"B": "docker"}
        ),
    )

    launched = launch(options_for("vllm", environment={"SECRET": "s3cr3t"}), config)

    assert launched.argv == (
        *("/usr/bin/docker", "run", "--rm"),
        *("-e", "A", "-e", "B", "-e", "SECRET", "-e", "VLLM_API_KEY"),
        *("--label", f"llamactl.installation={installation_id()}"),
        *("--label", "llamactl.instance=tiny"),
        *("--name", f"llamactl-{installation_id()}-tiny-8001", "vllm:1"),
        *("--model", "m", "--host", "127.0.0.1", "--port", "8001"),
    )
    assert launched.environment == {
        "A": "backend",
        "B": "docker",
        "SECRET": "s3cr3t",
        "VLLM_API_KEY": "derived",
    }
    assert launched.container_name == f"llamactl-{installation_id()}-tiny-8001"


def test_docker_is_not_looked_for_on_the_containers_path() -> None:
    def which(command: str, path: str | None = None) -> str | None:
        return None if path else f"/usr/bin/{command}"

    launched = launch(options_for(docker_enabled=True, environment={"PATH": "/opt"}), which=which)

    assert launched.argv[0] == "/usr/bin/docker"


def test_a_program_is_looked_for_on_the_path_it_is_given() -> None:
    def which(command: str, path: str | None = None) -> str | None:
        return f"{path}/{command}"

    launched = launch(options_for(environment={"PATH": "/venv/bin"}), which=which)

    assert launched.argv[0] == "/venv/bin/llama-server"


def test_a_command_with_a_blank_is_one_path(tmp_path: Path) -> None:
    program = tmp_path / "my server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    launched = launch(options_for(command_override=str(program)), which=shutil.which)

    assert launched.argv[0] == str(program)


def test_a_missing_override_is_named(tmp_path: Path) -> None:
    not_executable = tmp_path / "llama-server"
    not_executable.write_text("")
    with pytest.raises(ExecutableNotFound) as caught:
        launch(options_for(command_override=str(not_executable)), which=shutil.which)

    assert caught.value.code == "backend_start_failed"
    assert caught.value.extra == {"reason": "executable_not_found"}
    assert str(not_executable)[:40] in caught.value.details
    assert "command_override" in caught.value.details


def test_a_missing_program_says_what_to_install_and_which_key_to_set() -> None:
    with pytest.raises(ExecutableNotFound, match=r"install vLLM .*backends\.vllm\.command"):
        launch(options_for("vllm"), VllmConfig(), which=nowhere)
    with pytest.raises(ExecutableNotFound, match=r"backends\.llama-cpp\.command"):
        launch(config=LlamaCppConfig(command="/opt/llama-server"), which=nowhere)
    with pytest.raises(ExecutableNotFound, match="docker was not found"):
        launch(options_for(docker_enabled=True), which=nowhere)


def test_the_bundled_server_stands_in_for_a_default_command_that_is_not_installed() -> None:
    launched = launch(which=nowhere)

    assert launched.argv[:2] == (sys.executable, "-I")
    assert Path(launched.argv[2]).is_absolute()
    assert Path(launched.argv[2]).exists()
    assert launched.argv[3:5] == ("--model", "m")
    assert launched.environment == {"LLAMA_API_KEY": "derived"}


def test_a_containers_image_and_further_arguments_are_the_instances() -> None:
    docker = LlamaCppDocker(image="configured", args=["run", "--rm", "--gpus", "all"])
    options = options_for(
        docker_enabled=True, docker_image="mine:1", docker_args="-v '/my models:/m' --gpus all"
    )
    argv = launch(options, LlamaCppConfig(docker=docker)).argv
    assert argv[:7] == ("/usr/bin/docker", "run", "--rm", "--gpus", "all", "-v", "/my models:/m")
    assert argv[argv.index("--name") + 2] == "mine:1"
    assert "configured" not in argv
