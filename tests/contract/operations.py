"""The operations of the seed's swagger, and a request for each that should succeed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.test import Client

SWAGGER: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "data" / "swagger.json").read_text()
)
# Where the swagger itself is wrong: the Go program sends nanoseconds, as Go's durations are.
SWAGGER["definitions"]["config.DatabaseConfig"]["properties"]["connection_max_lifetime"] = {
    "type": "integer"
}

Operation = tuple[str, str]
"""Method and path as the swagger writes them."""

OPERATIONS: list[Operation] = [
    (method.upper(), path) for path, methods in SWAGGER["paths"].items() for method in methods
]

LLAMA_CPP_UI = "/llama-cpp/{name}"
PROXIED: frozenset[Operation] = frozenset(
    {
        ("GET", "/api/v1/instances/{name}/proxy"),
        ("POST", "/api/v1/instances/{name}/proxy"),
        ("GET", f"{LLAMA_CPP_UI}/"),
        ("POST", f"{LLAMA_CPP_UI}/apply-template"),
        ("POST", f"{LLAMA_CPP_UI}/completion"),
        ("POST", f"{LLAMA_CPP_UI}/detokenize"),
        ("POST", f"{LLAMA_CPP_UI}/embeddings"),
        ("POST", f"{LLAMA_CPP_UI}/infill"),
        ("POST", f"{LLAMA_CPP_UI}/metrics"),
        ("GET", f"{LLAMA_CPP_UI}/props"),
        ("POST", f"{LLAMA_CPP_UI}/props"),
        ("POST", f"{LLAMA_CPP_UI}/reranking"),
        ("GET", f"{LLAMA_CPP_UI}/slots"),
        ("POST", f"{LLAMA_CPP_UI}/tokenize"),
        ("POST", "/v1/"),
        ("GET", "/v1/models"),
    }
)
"""Answered by the proxy, which has no views; its own tests cover them."""

MANAGEMENT: list[Operation] = [operation for operation in OPERATIONS if operation not in PROXIED]

BODIES: dict[str, dict[str, object]] = {
    "/api/v1/auth/keys": {"name": "app", "permission_mode": "allow_all"},
    "/api/v1/instances/{name}": {"backend_type": "llama_cpp", "backend_options": {"model": "m"}},
    "/api/v1/backends/llama-cpp/parse-command": {"command": "llama-server -m m"},
    "/api/v1/backends/vllm/parse-command": {"command": "vllm serve m"},
    "/api/v1/backends/mlx/parse-command": {"command": "mlx_lm.server --model m"},
}


def filled(operation: Operation, *, key_id: object) -> str:
    """The path with names in it: instance ``x``, node ``main``, the key; ``new`` to create."""
    path = operation[1]
    name = "main" if "/nodes/" in path else "x"
    if operation == ("POST", "/api/v1/instances/{name}"):
        name = "new"
    return path.replace("{name}", name).replace("{id}", str(key_id))


def carry_out(client: Client, operation: Operation, *, key_id: object) -> Any:
    """Send the request that should succeed."""
    method, path = operation
    body = BODIES.get(path) if method in ("POST", "PUT") else None
    raw = b"" if body is None else json.dumps(body).encode()
    return client.generic(
        method, filled(operation, key_id=key_id), raw, content_type="application/json"
    )


def success_of(operation: Operation) -> tuple[int, dict[str, Any] | None]:
    """The status and the schema of the success that the swagger promises."""
    method, path = operation
    responses = SWAGGER["paths"][path][method.lower()]["responses"]
    (status,) = [status for status in responses if status.startswith("2")]
    return int(status), responses[status].get("schema")


def without_nulls(value: Any) -> Any:
    """``value`` as Swagger 2.0 can say it: it has no word for null, which the Go program sends."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def promised_names(schema: dict[str, Any]) -> Iterator[str]:
    """The names that the objects of an answer have by the swagger, if it says so."""
    target = schema.get("items", schema)
    definition = SWAGGER["definitions"].get(target.get("$ref", "").rpartition("/")[2], {})
    yield from definition.get("properties", {})
