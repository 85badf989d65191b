from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import DATA
from tests.support.stack import Stack, running_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for the tests of a module."""
    yield from running_stack(
        tmp_path_factory.mktemp("llamactl"),
        LLAMACTL_START_TIMEOUT="60",
        LLAMACTL_STOP_TIMEOUT="2",
        LLAMACTL_DRAIN_TIMEOUT="60",
        LLAMACTL_DEFAULT_AUTO_RESTART="false",
    )


@pytest.fixture(scope="module")
def model(gemma_model: Path) -> dict[str, object]:
    """Backend options of a small real model on one thread."""
    return {
        "model": str(gemma_model),
        "ctx_size": 4096,
        "parallel": 4,
        "threads": 1,
        "slots": True,
    }


@pytest.fixture(scope="module")
def tool_model(model: dict[str, object]) -> dict[str, object]:
    """The same with a chat template that knows tools: the file of the model has none at all."""
    return {**model, "chat_template_file": str(DATA / "tools.jinja")}
