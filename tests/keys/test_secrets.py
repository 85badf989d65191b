"""Generation, digests and comparison of keys."""

from __future__ import annotations

import hashlib
import hmac
import re
import shutil
import stat
import uuid
from pathlib import Path

from pydantic import SecretStr

from instances.launch_id import key_part, new_launch_id
from keys.secrets import (
    backend_key,
    digest,
    is_management_key,
    management_keys,
    new_inference_key,
)
from llamactl.config import AppConfig, AuthConfig


def configured(tmp_path: Path, *keys: str) -> AppConfig:
    auth = AuthConfig(management_keys=[SecretStr(key) for key in keys])
    return AppConfig(data_dir=tmp_path, auth=auth)


def test_inference_key_has_256_random_bits() -> None:
    keys = {new_inference_key() for _ in range(50)}
    assert len(keys) == 50
    assert all(re.fullmatch(r"llamactl-[0-9a-f]{64}", key) for key in keys)


def test_digest_of_any_text_has_32_bytes() -> None:
    assert len(digest("ü\udcff" + "x" * 10_000)) == 32


def test_only_configured_keys_open_management(tmp_path: Path) -> None:
    config = configured(tmp_path, "one", "zwei-ü")
    assert is_management_key("one", config)
    assert is_management_key("zwei-ü", config)
    for wrong in ("", "on", "one ", "ONE", "three"):
        assert not is_management_key(wrong, config)
    assert not (tmp_path / "management_key").exists()


def test_without_a_configured_key_one_is_generated_and_kept(tmp_path: Path) -> None:
    config = configured(tmp_path)
    (key,) = management_keys(config)
    assert re.fullmatch(r"llamactl-mgmt-[0-9a-f]{64}", key)
    assert management_keys(config) == (key,)
    assert is_management_key(key, config)
    mode = stat.S_IMODE((tmp_path / "management_key").stat().st_mode)
    assert mode == 0o600


def test_no_key_is_generated_where_none_is_required(tmp_path: Path) -> None:
    config = AppConfig(data_dir=tmp_path, auth=AuthConfig(require_management_auth=False))
    assert management_keys(config) == ()
    assert not is_management_key("", config)


def test_backend_keys_are_distinct_and_stable() -> None:
    assert backend_key(1, "a", "secret") == backend_key(1, "a", "secret")
    others = {
        backend_key(instance, launch, secret)
        for instance in (1, 2)
        for launch in ("", "a", "b")
        for secret in ("secret", "other")
    }
    assert len(others) == 12


def test_a_launch_of_an_earlier_release_keeps_its_key() -> None:
    before = hmac.new(b"secret", b"llamactl backend 1", hashlib.sha256).hexdigest()
    assert backend_key(1, key_part(uuid.uuid4().hex), "secret") == before
    assert backend_key(1, key_part(""), "secret") == before
    assert backend_key(1, key_part(new_launch_id()), "secret") != before


def test_a_removed_data_directory_is_not_made_again_with_another_key(tmp_path: Path) -> None:
    config = AppConfig(data_dir=tmp_path / "data")
    before = management_keys(config)
    shutil.rmtree(config.data_dir)
    assert management_keys(config) == before
    assert not config.data_dir.exists()
    # A removed file alone should be replaced by a new key.
    config.data_dir.mkdir()
    assert management_keys(config) != before
