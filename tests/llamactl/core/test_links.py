"""Links to llamactl: the path below which a client reaches it."""

from __future__ import annotations

from typing import Any

import pytest

from llamactl.core.backend_ui import mark_ui_port
from llamactl.core.links import prefix_of


@pytest.mark.parametrize(
    ("public", "ui", "on_own_port", "on_ui_port"),
    [
        ("", "", "", ""),
        ("https://llm.example/llm", "", "/llm", ""),
        ("https://llm.example/llm", "https://ui.example", "/llm", ""),
        ("https://llm.example/llm", "https://ui.example/a/b", "/llm", "/a/b"),
        ("", "https://ui.example/ui", "", "/ui"),
    ],
)
def test_each_port_has_the_prefix_of_its_own_url(
    override: Any, public: str, ui: str, on_own_port: str, on_ui_port: str
) -> None:
    override(server={"public_url": public, "backend_ui_url": ui})
    scope: dict[str, Any] = {"type": "http"}
    assert prefix_of(scope) == on_own_port
    mark_ui_port(scope)
    assert prefix_of(scope) == on_ui_port
