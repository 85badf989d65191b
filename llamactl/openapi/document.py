"""Parts of the OpenAPI document beyond the views' operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamactl.config import current
from llamactl.openapi import errors
from proxy import openapi

INTRODUCTION = Path(__file__).with_name("introduction.md").read_text(encoding="utf-8")

EXAMPLE_URL = "http://127.0.0.1:8080"

TAGS = [
    {"name": "Instances", "description": "Create, change, start, stop and inspect instances."},
    {
        "name": "OpenAI",
        "description": "For OpenAI's clients. `model` names the instance, which is started if it is"
        " not running.",
    },
    {
        "name": "Anthropic",
        "description": "For Anthropic's clients, with backends that support the Messages API.",
    },
    {
        "name": "Llama.cpp",
        "description": "llama.cpp's own endpoints, and its web page.",
    },
    {"name": "Keys", "description": "Inference keys for applications."},
    {"name": "Usage", "description": "Requests and tokens of each key and instance."},
    {
        "name": "Backends",
        "description": "The backends' programs: help, version, devices, command lines.",
    },
    {"name": "Nodes", "description": "The machines that run instances."},
    {"name": "System", "description": "llamactl itself: version, configuration and health."},
]
"""In the order in which a new user needs them."""

Document = dict[str, Any]


def complete(result: Document, generator: object, request: object, public: bool) -> Document:
    """Add the introduction, tags, error schemas and the proxy's paths (a postprocessing hook).

    Operations are sorted by tag, as on the page, and methods by ``_METHODS``, since the views'
    methods come in the order of a set.
    """
    public_url = current().server.public_url
    result["info"]["description"] = INTRODUCTION.replace(EXAMPLE_URL, public_url or EXAMPLE_URL)
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
    """Return the sort key of a path: its tag, and catch-all paths last."""
    path, operations = item
    return _ORDER[next(iter(operations.values()))["tags"][0]], "{path}" in path
