from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.paths import DATA


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
