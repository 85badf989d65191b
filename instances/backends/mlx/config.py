"""The config section ``backends.mlx``."""

from __future__ import annotations

from typing import Annotated

from llamactl.config.schema import BackendConfig
from llamactl.config.types import ExpandsHome, Text


class MlxConfig(BackendConfig):
    """``mlx_lm.server``. Containers can't reach Apple's GPUs, so ``docker`` is always None."""

    command: Annotated[Text, ExpandsHome] = "mlx_lm.server"

    ignored_keys = {**BackendConfig.ignored_keys, "docker": "MLX does not run in a container"}
