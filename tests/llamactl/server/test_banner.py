"""The start banner: all facts for a first request, and no configured secret."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from keys.secrets import management_keys
from llamactl.config import AppConfig
from llamactl.server.banner import (
    PLACEHOLDER_KEY,
    banner,
    example_requests,
    exposure_warnings,
)
from llamactl.server.bootstrap import AdminAccount
from llamactl.server.foreground import SECONDS

CHANGED = AdminAccount("admin", None)


def config_with(data_dir: Path, **sections: dict[str, object]) -> AppConfig:
    return AppConfig.model_validate({"data_dir": data_dir, **sections})


def test_the_banner_has_all_facts_for_a_first_request(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    account = AdminAccount("admin", "s3cret", is_new=True)
    text = banner(config, account, keep_backends=False)
    assert f"is ready ({SECONDS} s)" in text
    for fact in (
        "http://127.0.0.1:8080/",
        "http://127.0.0.1:8080/admin/  user admin, password s3cret",
        "http://127.0.0.1:8080/docs",
        management_keys(config)[0],
        str(tmp_path / "management_key"),
        "Ctrl-C (backends are stopped too)",
    ):
        assert fact in text


def test_the_password_is_printed_at_the_first_start_alone(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    text = banner(config, AdminAccount("admin", "s3cret"), keep_backends=False)
    assert "s3cret" not in text
    assert f"user admin, password in {tmp_path / 'admin_password'}" in text


def test_a_configured_key_is_not_printed(tmp_path: Path) -> None:
    config = config_with(tmp_path, auth={"management_keys": ["mine-alone"]})
    shown = banner(config, CHANGED, keep_backends=True) + example_requests(
        config, model="demo", prompt="It's"
    )
    assert "mine-alone" not in shown
    assert "as configured (auth.management_keys)" in shown
    assert PLACEHOLDER_KEY in shown
    assert "password (changed)" in shown
    assert "backends keep running" in shown


def test_disabled_docs_are_not_mentioned(tmp_path: Path) -> None:
    config = config_with(tmp_path, server={"enable_swagger": False})
    assert "/docs" not in banner(config, CHANGED, keep_backends=False)


def test_a_server_on_all_addresses_is_shown_at_a_reachable_one(tmp_path: Path) -> None:
    config = config_with(tmp_path, server={"host": "0.0.0.0", "port": 9999})
    text = banner(config, CHANGED, keep_backends=False)
    assert "http://127.0.0.1:9999/  (listens on 0.0.0.0)" in text


@pytest.mark.parametrize(
    ("host", "auth", "warned_of"),
    [
        ("0.0.0.0", {"require_management_auth": False}, ["require_management_auth"]),
        ("10.0.0.5", {"require_inference_auth": False}, ["require_inference_auth"]),
        ("0.0.0.0", {}, []),
        ("127.0.0.1", {"require_management_auth": False, "require_inference_auth": False}, []),
    ],
)
def test_apis_open_to_the_network_are_warned_of(
    tmp_path: Path, host: str, auth: dict[str, object], warned_of: list[str]
) -> None:
    lines = exposure_warnings(config_with(tmp_path, server={"host": host}, auth=auth))
    assert len(lines) == len(warned_of)
    assert all(setting in line for setting, line in zip(warned_of, lines, strict=True))


def test_the_curl_line_can_be_pasted(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    line = next(
        line
        for line in example_requests(config, model="demo", prompt="It's").splitlines()
        if line.startswith("curl")
    )
    words = shlex.split(line)
    assert words[:3] == ["curl", "-N", "http://127.0.0.1:8080/v1/chat/completions"]
    assert f"Authorization: Bearer {management_keys(config)[0]}" in words
    body = json.loads(words[-1])
    assert body["model"] == "demo"
    assert body["stream"]
    assert body["messages"] == [{"role": "user", "content": "It's"}]


def test_the_python_lines_are_python(tmp_path: Path) -> None:
    lines = example_requests(config_with(tmp_path), model="demo", prompt="It's").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("from openai"))
    compile("\n".join(lines[start : start + 2]), "example", "exec")


def test_no_key_is_shown_where_none_is_needed(tmp_path: Path) -> None:
    auth: dict[str, object] = {"require_management_auth": False, "require_inference_auth": False}
    config = config_with(tmp_path, auth=auth)
    assert "Authorization" not in example_requests(config, model="demo", prompt="It's")
    assert "none needed" in banner(config, CHANGED, keep_backends=False)
