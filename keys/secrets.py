"""How keys are made, hashed and compared, and where the management keys come from."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256

from llamactl.config import AppConfig
from llamactl.core.secret_files import read_or_create_secret

INFERENCE_PREFIX = "llamactl-"
MANAGEMENT_PREFIX = "llamactl-mgmt-"


def new_inference_key() -> str:
    """``llamactl-`` and 64 hex digits: 256 bits of randomness."""
    return INFERENCE_PREFIX + secrets.token_hex(32)


def digest(key: str) -> bytes:
    """The 32 bytes a key is stored and found by.

    One SHA-256 is enough because the key itself is 256 random bits: there is nothing to guess
    that a slow hash would protect.
    """
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def management_keys(config: AppConfig) -> tuple[str, ...]:
    """The configured management keys, or else the generated one of ``data_dir``.

    Generated once, kept in ``data_dir/management_key`` (mode 0600), the same after a restart.
    """
    configured = tuple(key.get_secret_value() for key in config.auth.management_keys)
    if configured or not config.auth.require_management_auth:
        return configured
    return (
        read_or_create_secret(
            config.data_dir / "management_key", lambda: MANAGEMENT_PREFIX + secrets.token_hex(32)
        ),
    )


def is_management_key(key: str, config: AppConfig) -> bool:
    """Whether ``key`` opens the management API; takes the same time for every wrong key."""
    wanted = digest(key)
    matches = [hmac.compare_digest(wanted, digest(known)) for known in management_keys(config)]
    return any(matches)


def backend_key(instance_id: int, secret_key: str) -> str:
    """The key that llamactl and the backend of one instance share.

    Derived, so that it is stored nowhere and an adopted backend still knows the same one.
    """
    message = f"llamactl backend {instance_id}".encode()
    return hmac.new(secret_key.encode(), message, sha256).hexdigest()
