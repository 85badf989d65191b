"""What does the OpenAPI document say beyond the operations that have views?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamactl.openapi import errors
from proxy import openapi

INTRODUCTION = Path(__file__).with_name("introduction.md").read_text(encoding="utf-8")

TAGS = [
    {"name": "Instances", "description": "Create, change, start, stop, and look into them."},
    {
        "name": "OpenAI",
        "description": "For OpenAI's clients. The instance is named by `model`, and is started if"
        " it does not run.",
    },
    {
        "name": "Anthropic",
        "description": "For Anthropic's clients; as above, for backends that speak it.",
    },
    {
        "name": "Llama.cpp",
        "description": "What llama.cpp's own server offers besides, and its web page.",
    },
    {"name": "Keys", "description": "Inference keys for applications."},
    {"name": "Backends", "description": "What the backends' programs say, and take."},
    {"name": "Nodes", "description": "The machines that run instances."},
    {"name": "System", "description": "llamactl itself."},
]
"""In the order in which somebody new needs them."""

Document = dict[str, Any]


def complete(result: Document, generator: object, request: object, public: bool) -> Document:
    """A postprocessing hook: adds introduction, tags, the errors' schemas and the proxy's paths.

    Operations are put in the order of their tags, so that a list of them reads as the page does,
    and methods in one order: the views' are in that of a set.
    """
    result["info"]["description"] = INTRODUCTION
    result["tags"] = TAGS
    components = result["components"]
    components["schemas"] |= errors.SCHEMAS
    for kind, entries in openapi.components().items():
        components[kind] = components.get(kind, {}) | entries
    for path, operations in openapi.paths().items():
        result["paths"].setdefault(path, {}).update(operations)
    result["paths"] = {
        path: dict(sorted(operations.items(), key=lambda item: _METHODS.index(item[0])))
        for path, operations in sorted(result["paths"].items(), key=_place)
    }
    return result


_METHODS = ["get", "post", "put", "patch", "delete", "head", "options"]
_ORDER = {tag["name"]: place for place, tag in enumerate(TAGS)}


def _place(item: tuple[str, Document]) -> tuple[int, bool]:
    """By the tag; paths that stand for many others come last."""
    path, operations = item
    return _ORDER[next(iter(operations.values()))["tags"][0]], "{path}" in path
