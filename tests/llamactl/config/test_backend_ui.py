"""Port and URL of the backends' pages: an origin of their own, or an error."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from llamactl.config.schema import ServerConfig


@pytest.mark.parametrize(
    "public_url", ["https://llm.example", "https://llm.example/llm", "https://LLM.example:443/"]
)
def test_the_pages_url_in_the_origin_of_llamactl_is_refused(public_url: str) -> None:
    with pytest.raises(ValidationError, match="another host name or port"):
        ServerConfig.model_validate(
            {"public_url": public_url, "backend_ui_url": "https://llm.example/ui"}
        )


@pytest.mark.parametrize("url", ["https://ui.llm.example", "https://llm.example:8443", ""])
def test_the_pages_url_of_another_origin_is_kept(url: str) -> None:
    server = ServerConfig.model_validate(
        {"public_url": "https://llm.example", "backend_ui_url": url}
    )
    assert server.backend_ui_url == url


def test_the_pages_port_must_not_be_llamactls_own() -> None:
    with pytest.raises(ValidationError, match="another port"):
        ServerConfig.model_validate({"port": 8123, "backend_ui_port": 8123})
