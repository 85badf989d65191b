"""Generation, hashing and comparison of keys."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from pathlib import Path

from llamactl.config import AppConfig
from llamactl.core.secret_files import read_or_create_secret

INFERENCE_PREFIX = "llamactl-"
MANAGEMENT_PREFIX = "llamactl-mgmt-"
HINT_LENGTH = 4
"""Number of a key's last characters that are kept readable."""

_generated_keys: dict[Path, str] = {}
"""The key that this process has read last from each file."""


def new_inference_key() -> str:
    """Return ``llamactl-`` and 64 hex digits: 256 bits of randomness."""
    return INFERENCE_PREFIX + secrets.token_hex(32)


def digest(key: str) -> bytes:
    """Return the 32 bytes under which a key is stored and found.

    One SHA-256 is enough: a key is 256 random bits, and a slow hash only protects a guessable
    secret.
    """
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def management_keys(config: AppConfig) -> tuple[str, ...]:
    """Return the configured management keys, or else the generated key of ``data_dir``.

    The key is generated once and kept in ``data_dir/management_key`` (mode 0600). If the directory
    is removed or unmounted later, the key stays valid: a new one would lock the operator out, and
    the new directory would get an empty database.
    """
    configured = tuple(key.get_secret_value() for key in config.auth.management_keys)
    if configured or not config.auth.require_management_auth:
        return configured
    path = config.data_dir / "management_key"
    if path not in _generated_keys or config.data_dir.is_dir():
        _generated_keys[path] = read_or_create_secret(
            path, lambda: MANAGEMENT_PREFIX + secrets.token_hex(32)
        )
    return (_generated_keys[path],)


def is_management_key(key: str, config: AppConfig) -> bool:
    """Whether ``key`` opens the management API. Takes the same time for each wrong key."""
    received = digest(key)
    matches = [hmac.compare_digest(received, digest(known)) for known in management_keys(config)]
    return any(matches)


def backend_key(instance_id: int, launch: str, secret_key: str) -> str:
    """Return the key that llamactl and one process of an instance share.

    The key is derived, so that it is stored nowhere and stays valid for an adopted backend. With
    ``launch`` (``instances.launch_id.key_part``) a key that leaks ends with its process; without
    it is the key of every process of the instance, as in earlier releases.
    """
    message = f"llamactl backend {instance_id} {launch}".rstrip().encode()
    return hmac.new(secret_key.encode(), message, sha256).hexdigest()
