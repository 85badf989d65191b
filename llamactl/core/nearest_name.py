"""Nearest known name of a misspelt one, for "did you mean"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_CHARACTERS = 80
"""The comparison is quadratic in the length."""


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return the known name that ``name`` resembles most, or an empty text.

    Case, hyphens and underscores do not count: ``backendType`` is ``backend_type``.
    """
    by_letters = {_letters(each): each for each in known}
    found = difflib.get_close_matches(_letters(name[:MAX_CHARACTERS]), by_letters, n=1, cutoff=0.75)
    return by_letters[found[0]] if found else ""


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
