"""Argon2id hashes of the Go llamactl's keys: shape, limits, verification."""

from __future__ import annotations

import re

from argon2 import Type, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import verify_secret

MAX_MEMORY_KIB = 256 * 1024
MAX_ITERATIONS = 10
MAX_LANES = 16

_GO_KEY = re.compile(r"llamactl-[0-9a-f]{64}", re.ASCII)


def has_go_shape(key: str) -> bool:
    """Return whether ``key`` is ``llamactl-`` and 64 hex digits, as the Go program makes keys."""
    return _GO_KEY.fullmatch(key) is not None


def is_argon2id(encoded: str) -> bool:
    """Return whether ``encoded`` is an Argon2id hash at a cost that a web process can afford.

    The Go program's hashes cost 64 MiB and one iteration.
    """
    try:
        cost = extract_parameters(encoded)
    except (InvalidHashError, ValueError):
        return False
    return (
        len(encoded) <= 200
        and cost.type is Type.ID
        and cost.memory_cost <= MAX_MEMORY_KIB
        and cost.time_cost <= MAX_ITERATIONS
        and cost.parallelism <= MAX_LANES
    )


def matches(encoded: str, key: str) -> bool:
    """Return whether ``encoded`` is the hash of ``key``. Takes some 50 ms, without the GIL."""
    try:
        return verify_secret(encoded.encode(), key.encode(), Type.ID)
    except VerificationError:
        return False
