"""GET /v1/models: which models there are for this key, in OpenAI's shape."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from proxy.errors import InstanceNotPermitted, ModelNotFound
from proxy.headers import to_backend
from proxy.table.table import KeyRule, RoutingTable, Target
from proxy.upstream import BackendError, Upstream

ROUTER_TIMEOUT_SECONDS = 2.0
MAX_LIST_BYTES = 16 * 2**20


async def models(table: RoutingTable, rule: KeyRule, upstream: Upstream) -> bytes:
    """The JSON of the list, sorted by name.

    An instance in router mode (no model of its own) also lists what it can load, as
    ``name/model``; one with a model of its own is that model, so nothing need be asked.
    """
    allowed = [target for name, target in sorted(table.targets.items()) if rule.allows(target)]
    entries = [_entry(target.name, target, "llamactl") for target in allowed]
    routers = [target for target in allowed if target.is_ready and target.served_model is None]
    for further in await asyncio.gather(*(_models_of(target, upstream) for target in routers)):
        entries += further
    return orjson.dumps({"object": "list", "data": entries})


async def model(table: RoutingTable, rule: KeyRule, upstream: Upstream, wanted: str) -> bytes:
    """The JSON of the entry that the list has under this id.

    Raises ModelNotFound where it has none, InstanceNotPermitted where the key may not use it.
    """
    found = table.route(wanted)
    if found is None:
        raise ModelNotFound(wanted)
    target, _ = found
    if not rule.allows(target):
        raise InstanceNotPermitted
    entries = [_entry(target.name, target, "llamactl")]
    if wanted != target.name and target.is_ready and target.served_model is None:
        entries = await _models_of(target, upstream)
    for entry in entries:
        if entry["id"] == wanted:
            return orjson.dumps(entry)
    raise ModelNotFound(wanted, f"instance {target.name} lists no such model at present")


def _entry(name: str, target: Target, owner: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": target.created, "owned_by": owner}


async def _models_of(target: Target, upstream: Upstream) -> list[dict[str, object]]:
    """The entries of a router's models; none where it doesn't answer sensibly in time."""
    try:
        async with asyncio.timeout(ROUTER_TIMEOUT_SECONDS):
            answer = await upstream.open(
                target,
                method="GET",
                path_and_query="/v1/models",
                headers=to_backend((), target.authorization),
                body=b"",
                # Not one that the backend may be closing just now: its models would be missing.
                fresh=True,
            )
            async with answer:
                document: Any = orjson.loads(await answer.read_whole(MAX_LIST_BYTES))
    except (BackendError, TimeoutError, orjson.JSONDecodeError):
        return []
    data = document.get("data") if isinstance(document, dict) else None
    entries = data if isinstance(data, list) else []
    names = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    return [
        _entry(f"{target.name}/{name}", target, target.name)
        for name in sorted(name for name in names if isinstance(name, str))
    ]
