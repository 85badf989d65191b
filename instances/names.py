"""Names of instances: pattern, length, validation."""

from __future__ import annotations

import re

from instances.errors import InvalidInstanceName

MAX_NAME_LENGTH = 50
NAME_PATTERN = r"[a-zA-Z0-9_-][a-zA-Z0-9._-]*"
_NAME = re.compile(NAME_PATTERN, re.ASCII)


def validate_name(name: str) -> str:
    """Return ``name`` if it is valid for an instance.

    Letters, digits, ``_``, ``-`` and, not first, ``.``; 1 to 50 characters. The later Go program
    added periods, because model names have them.

    Raises InvalidInstanceName.
    """
    if not name:
        raise InvalidInstanceName("name cannot be empty")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidInstanceName(f"name too long (max {MAX_NAME_LENGTH} characters)")
    if not _NAME.fullmatch(name):
        raise InvalidInstanceName(
            "name contains invalid characters (only letters, digits, hyphens, underscores and,"
            " not as the first character, periods are allowed)"
        )
    return name
