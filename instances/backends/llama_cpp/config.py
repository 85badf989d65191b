"""The config section ``backends.llama-cpp``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from llamactl.config.schema import DATA_DIR_MARK, BackendConfig, DockerConfig
from llamactl.config.types import ExpandsHome, OptionalHomePath, Text, Words


class LlamaCppDocker(DockerConfig):
    """llama.cpp's image, with its model cache in the data directory."""

    image: Text = "ghcr.io/ggml-org/llama.cpp:server"
    args: Words = [
        *("run", "--rm", "--network", "host", "--gpus", "all"),
        *("-v", f"{DATA_DIR_MARK}/llama.cpp:/root/.cache/llama.cpp"),
    ]


class LlamaCppConfig(BackendConfig):
    """llama-server."""

    ignored_variables = {
        "LLAMACTL_LLAMACPP_DOWNLOAD_TIMEOUT": "models are downloaded by the backend itself"
    }

    command: Annotated[Text, ExpandsHome] = "llama-server"
    docker: LlamaCppDocker | None = LlamaCppDocker()
    cache_dir: OptionalHomePath = None
    """Becomes LLAMA_CACHE in ``environment``, unless the operator sets LLAMA_CACHE there."""

    def placed_in(self, data_dir: Path) -> Self:
        section = super().placed_in(data_dir)
        if self.cache_dir is None:
            return section
        environment = {"LLAMA_CACHE": str(data_dir / self.cache_dir), **self.environment}
        return section.model_copy(update={"environment": environment})
