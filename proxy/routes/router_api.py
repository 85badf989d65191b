"""Queries and documents of llama.cpp's router at the root: ``/health``, ``/props``, ``autoload``.

The fields are those of ``server-models.cpp``, which llama.cpp's web UI and Open WebUI read.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import orjson

from llamactl.version import VERSION
from proxy.table.table import KeyRule, RoutingTable

HEALTHY = b'{"status":"ok"}'
DONE = b'{"success":true}'
"""Answer to a load or an unload that was requested; ``GET /models`` shows how it ends."""

_LOADS = frozenset({"", "true", "1"})
"""Values of ``autoload`` that load a model. llama.cpp takes every other value for a no."""


def _value_of(query: bytes, name: str) -> str | None:
    """The first value of the parameter, which llama.cpp takes too; ``None`` without one."""
    if name.encode() not in query and b"%" not in query:
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return next((value for key, value in pairs if key == name), None)


def declines_load(query: bytes) -> bool:
    """Whether the request says ``autoload=false``: it must not start an instance."""
    value = _value_of(query, "autoload")
    return value is not None and value.lower() not in _LOADS


def model_in(query: bytes) -> str:
    """The parameter ``model``; empty without one."""
    return _value_of(query, "model") or ""


def props_query(served_model: str | None) -> bytes:
    """The query of ``/props`` for a backend.

    A backend that is a router itself is told not to load its model either.
    """
    if served_model is None:
        return b""
    return urlencode({"model": served_model, "autoload": "false"}).encode()


def router_props(table: RoutingTable, rule: KeyRule) -> bytes:
    """The document of ``/props`` without a model; counts the instances that the key may use."""
    # The fields of a model are there because the web UI reads them from a router too.
    return orjson.dumps(
        {
            "role": "router",
            "max_instances": sum(map(rule.allows, table.targets.values())),
            "models_autoload": True,
            "model_alias": "llamactl",
            "model_path": "none",
            "default_generation_settings": {"params": {}, "n_ctx": 0},
            "webui_settings": {},
            "build_info": f"llamactl {VERSION}",
        }
    )
