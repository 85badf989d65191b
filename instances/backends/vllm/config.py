"""The config section ``backends.vllm``."""

from __future__ import annotations

from typing import Annotated

from llamactl.config.schema import DATA_DIR_MARK, BackendConfig, DockerConfig
from llamactl.config.types import ExpandsHome, Text, Words


class VllmDocker(DockerConfig):
    """vLLM's image, with its model cache in the data directory."""

    image: Text = "vllm/vllm-openai:latest"
    args: Words = [
        *("run", "--rm", "--network", "host", "--gpus", "all", "--shm-size", "1g"),
        *("-v", f"{DATA_DIR_MARK}/huggingface:/root/.cache/huggingface"),
    ]


class VllmConfig(BackendConfig):
    """``vllm``, with the subcommand as its first argument."""

    command: Annotated[Text, ExpandsHome] = "vllm"
    args: Words = ["serve"]
    docker: VllmDocker | None = VllmDocker()
