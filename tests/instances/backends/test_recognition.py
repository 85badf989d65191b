"""Pasted commands of another backend, and of a container."""

from __future__ import annotations

from typing import Any

import pytest

from instances.backends.command_errors import CommandError
from instances.backends.docker import further_args
from instances.backends.pasted import parse_pasted
from instances.backends.registry import backend_for

MODEL = {"model": "/models/q.gguf"}
SERVER = "ghcr.io/ggml-org/llama.cpp:server-cuda"


@pytest.mark.parametrize("chosen", ["llama_cpp", "vllm", "mlx_lm"])
@pytest.mark.parametrize(
    ("command", "backend_type", "options"),
    [
        ("llama-server -m /models/q.gguf -c 5", "llama_cpp", {**MODEL, "ctx_size": 5}),
        ("$ A=1 ./bin/llama-server-cuda -m /models/q.gguf", "llama_cpp", MODEL),
        ("vllm serve o/n -tp 2", "vllm", {"model": "o/n", "tensor_parallel_size": 2}),
        ("python -m vllm.entrypoints.openai.api_server --model o/n", "vllm", {"model": "o/n"}),
        ("python3 -m mlx_lm.server --model o/n", "mlx_lm", {"model": "o/n"}),
        ("mlx_lm.server --model o/n", "mlx_lm", {"model": "o/n"}),
    ],
)
def test_a_program_is_recognised_whatever_is_chosen(
    chosen: str, command: str, backend_type: str, options: dict[str, Any]
) -> None:
    pasted = parse_pasted(command, backend_for(chosen))
    assert (pasted.backend.type, pasted.backend_options) == (backend_type, options)


def test_flags_without_a_program_are_the_chosen_backends() -> None:
    pasted = parse_pasted("--model o/n -tp 2", backend_for("vllm"))
    assert pasted.backend.type == "vllm"
    with pytest.raises(CommandError, match="'ollama' is not the program"):
        parse_pasted("ollama run llama3", backend_for("llama_cpp"))


@pytest.mark.parametrize("chosen", ["llama_cpp", "vllm"])
@pytest.mark.parametrize(
    ("command", "document"),
    [
        (
            f"docker run -p 8080:8080 -v /models:/models --gpus all {SERVER} -m /models/q.gguf"
            " --port 8080 --host 0.0.0.0 -ngl 99",
            {
                "backend_type": "llama_cpp",
                "backend_options": {**MODEL, "gpu_layers": 99},
                "docker_enabled": True,
                "docker_image": SERVER,
                "docker_args": "-v /models:/models --gpus all",
            },
        ),
        (
            f"sudo docker run --rm -it -d --name llm --restart=always -e A=1 --env B -v='/my m:/m'"
            f" {SERVER} -m /models/q.gguf",
            {
                "backend_type": "llama_cpp",
                "backend_options": MODEL,
                "environment": {"A": "1"},
                "docker_enabled": True,
                "docker_image": SERVER,
                "docker_args": "-e B -v '/my m:/m'",
            },
        ),
        (
            "podman run ghcr.io/ggml-org/llama.cpp:full --server -m /models/q.gguf",
            {
                "backend_type": "llama_cpp",
                "backend_options": MODEL,
                "docker_enabled": True,
                "docker_image": "ghcr.io/ggml-org/llama.cpp:full",
            },
        ),
        (
            "docker run --runtime nvidia --gpus all \\\n -v ~/.cache/huggingface:/root/.cache \\\n"
            ' --env "HF_TOKEN=hf_x" \\\n -p 8000:8000 --ipc=host \\\n vllm/vllm-openai:v0.9 \\\n'
            " --model mistralai/Mistral-7B-v0.1",
            {
                "backend_type": "vllm",
                "backend_options": {"model": "mistralai/Mistral-7B-v0.1"},
                "environment": {"HF_TOKEN": "hf_x"},
                "docker_enabled": True,
                "docker_image": "vllm/vllm-openai:v0.9",
                "docker_args": "--runtime nvidia --gpus all"
                " -v '~/.cache/huggingface:/root/.cache' --ipc host",
            },
        ),
        (
            "docker container run vllm/vllm-openai vllm serve o/n",
            {
                "backend_type": "vllm",
                "backend_options": {"model": "o/n"},
                "docker_enabled": True,
                "docker_image": "vllm/vllm-openai",
            },
        ),
    ],
)
def test_a_container_becomes_an_instance_that_runs_in_docker(
    chosen: str, command: str, document: dict[str, Any]
) -> None:
    assert parse_pasted(command, backend_for(chosen)).to_document() == document


def test_an_image_of_the_operators_own_is_the_chosen_backends() -> None:
    pasted = parse_pasted(
        "docker run registry.example/mine -m /models/q.gguf", backend_for("llama_cpp")
    )
    assert pasted.docker_image == "registry.example/mine"
    assert pasted.backend_options == MODEL
    with pytest.raises(CommandError, match="does not run in a container"):
        parse_pasted("docker run registry.example/mine -m x", backend_for("mlx_lm"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("docker", "starts no container"),
        ("docker compose up", "starts no container"),
        ("docker run", "names no image"),
        ("docker run --rm -it", "names no image"),
        ("docker run -v", "-v takes a value"),
        (f"docker run -p $PORT:8080 -v $PORT:/x {SERVER}", "leave it out"),
        (f"docker run -v $PWD:/models {SERVER}", "'$PWD' is for a shell"),
        (f"docker run {SERVER} -m a b", "a value with blanks needs quotes"),
        (f"docker run {SERVER} --ctx-size lots", "--ctx-size must be a whole number"),
    ],
)
def test_a_wrong_container_command_is_refused_with_its_reason(command: str, message: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_pasted(command, backend_for("llama_cpp"))
    assert message in caught.value.details


@pytest.mark.parametrize(
    "command",
    [
        "docker run --rm -it --shm-size=1g --gpus all -e A=1 -v /m:/m",
        "docker run \u2013rm \u2013it \u2014shm-size=1g \u2013gpus all \u2013e A=1 \u2013v /m:/m",
        "docker run \u2013\u2013rm \u2212ti \u2014shm\u2011size=1g \u2014gpus\u00a0all "
        "-e A=1 \u2014v /m:/m",
    ],
)
def test_dashes_of_a_web_page_are_hyphens_in_the_flags_of_docker(command: str) -> None:
    pasted = parse_pasted(f"{command} {SERVER} \u2013m /models/q.gguf", backend_for("llama_cpp"))
    assert pasted.docker_image == SERVER
    assert pasted.docker_args == "--shm-size 1g --gpus all -v /m:/m"
    assert pasted.environment == {"A": "1"}
    assert pasted.backend_options == MODEL


def test_configured_arguments_are_not_given_twice() -> None:
    configured = ["run", "--rm", "--network", "host", "--gpus", "all"]
    text = "--gpus all --gpus 2 -v '/my m:/m' --init --rm --shm-size=1g"
    assert further_args(configured, text) == [
        *("--gpus", "2", "-v", "/my m:/m", "--init", "--shm-size=1g"),
    ]
