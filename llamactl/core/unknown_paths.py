"""Refusals of paths that llamactl does not have, with the path or base URL to use instead."""

from __future__ import annotations

import re

from llamactl.core.api_paths import ROOT, is_ollama, is_resource, right_path
from llamactl.core.errors import PathNotFound
from llamactl.core.links import public_path

_SHOWN = 200
_LLAMA_CPP = re.compile(r"/llama-cpp/[^/]+(?=/)")


class MisspeltPath(PathNotFound):
    """A path of the API at a wrong base URL, or with a slash too many."""

    def __init__(self, path: str, right: str, base_path: str = "") -> None:
        """``base_path``: the path above ``/v1``, for the API of a single instance."""
        if right.startswith(f"{ROOT}/messages"):
            advice = f"the base URL of Anthropic's clients ends without {ROOT}"
        else:
            advice = f"the base URL of OpenAI's clients is {public_path(base_path + ROOT)}"
        super().__init__(
            f"there is no path {path[:_SHOWN]}; use {public_path(base_path + right)[:_SHOWN]}"
            f" ({advice})"
        )


class BaseUrlAlone(PathNotFound):
    """The base URL of OpenAI's clients without a path."""

    def __init__(self) -> None:
        base = public_path(ROOT)
        super().__init__(
            f"{base} is the base URL of OpenAI's clients, and no path of its own; GET {base}/models"
            f" lists the models, {base}/chat/completions answers"
        )


class ApiNotServed(PathNotFound):
    """An API of OpenAI or Anthropic without a model in its requests."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"llamactl has no {path[:_SHOWN]}: it forwards requests that name a model, and keeps no"
            " files, batches, assistants, conversations or responses;"
            f" {public_path('/docs')} lists all paths"
        )


class OllamaNotServed(PathNotFound):
    """A path of Ollama's API. Ollama's clients show one sentence."""

    def __init__(self, base_url: str) -> None:
        super().__init__(
            "this is llamactl, which does not serve Ollama's API: use a client for OpenAI's API,"
            f" with the base URL {base_url}{ROOT} and an inference key"
        )


def refusal_of(path: str, base_url: str) -> PathNotFound | None:
    """The refusal of a path of OpenAI's, Anthropic's or Ollama's API; ``None`` for others.

    ``base_url`` is llamactl's own, without a slash at the end.
    """
    if is_ollama(path):
        return OllamaNotServed(base_url)
    above = _LLAMA_CPP.match(path)
    base_path = above[0] if above else ""
    api_path = path.removeprefix(base_path)
    if is_resource(api_path):
        return ApiNotServed(path)
    if api_path.rstrip("/") == ROOT:
        return BaseUrlAlone()
    right = right_path(api_path)
    return MisspeltPath(path, right, base_path) if right else None
