"""Traits of a model, as far as the options of its backend tell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """Traits that the options set."""

    context_length: int | None = None
    """Tokens of one request; ``None``: the model's own."""
    takes_images: bool = False
    is_embedding: bool = False
    is_reranker: bool = False


def positive(options: Mapping[str, object], name: str) -> int | None:
    """Return the option, if it is a number above 0."""
    value = options.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if value > 0 else None
