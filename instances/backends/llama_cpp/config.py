"""The config section ``backends.llama-cpp``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from llamactl.config.schema import DATA_DIR_MARK, BackendConfig, DockerConfig
from llamactl.config.types import ExpandsHome, OptionalHomePath, Text, Words

_CACHE = ":/root/.cache/llama.cpp"


class LlamaCppDocker(DockerConfig):
    """llama.cpp's image, with its model cache in the data directory."""

    image: Text = "ghcr.io/ggml-org/llama.cpp:server"
    args: Words = [
        *("run", "--rm", "--network", "host", "--gpus", "all"),
        *("-v", f"{DATA_DIR_MARK}/llama.cpp{_CACHE}"),
    ]


class LlamaCppConfig(BackendConfig):
    """llama-server."""

    ignored_variables = {
        "LLAMACTL_LLAMACPP_DOWNLOAD_TIMEOUT": "models are downloaded by the backend itself"
    }

    command: Annotated[Text, ExpandsHome] = "llama-server"
    docker: LlamaCppDocker | None = LlamaCppDocker()
    cache_dir: OptionalHomePath = None
    """Becomes LLAMA_CACHE in ``environment``, unless the operator sets LLAMA_CACHE there. The
    default arguments for docker mount that directory under its own name, which LLAMA_CACHE has in
    the container too."""

    def placed_in(self, data_dir: Path) -> Self:
        section = super().placed_in(data_dir)
        environment = dict(self.environment)
        if self.cache_dir is not None:
            environment.setdefault("LLAMA_CACHE", str(data_dir / self.cache_dir))
        section = section.model_copy(update={"environment": environment})
        docker, cache = section.docker, environment.get("LLAMA_CACHE")
        if docker is None or self.docker is None or not cache:
            return section
        if "args" in self.docker.model_fields_set:
            return section
        args = [f"{cache}:{cache}" if arg.endswith(_CACHE) else arg for arg in docker.args]
        return section.model_copy(update={"docker": docker.model_copy(update={"args": args})})
