"""Configurations from a test's own home, working directory and variables alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from instances.backends.registry import config_sections
from llamactl.config import AppConfig, ConfigError, load

Load = Callable[..., AppConfig]
Refuse = Callable[..., ConfigError]


@pytest.fixture
def load_config(tmp_path: Path) -> Load:
    """``load_config(yaml, dotenv=…, NAME=…)``: write the files and load them."""

    def write_and_load(
        yaml: str | bytes | None = None, *, dotenv: str | bytes | None = None, **environ: str
    ) -> AppConfig:
        for name, content in (("llamactl.yaml", yaml), (".env", dotenv)):
            if content is not None:
                raw = content if isinstance(content, bytes) else content.encode()
                (tmp_path / name).write_bytes(raw)
        environ = {"HOME": str(tmp_path / "home"), **environ}
        return load(environ, tmp_path, backends=config_sections())

    return write_and_load


@pytest.fixture
def refuse(load_config: Load) -> Refuse:
    """The ConfigError that ``load_config`` raises."""

    def load_and_fail(*args: str | bytes | None, **kwargs: str) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            load_config(*args, **kwargs)
        return caught.value

    return load_and_fail
