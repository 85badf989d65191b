"""GET /v1/models: the instances this key may use, in OpenAI's list."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson
from multidict import CIMultiDict

from proxy.table import KeyRule, RoutingTable, Target
from proxy.upstream import BackendError, Upstream

ROUTER_TIMEOUT_SECONDS = 2.0


async def models(table: RoutingTable, rule: KeyRule, upstream: Upstream) -> bytes:
    """The JSON of the list, sorted by name.

    An instance in router mode (no model of its own) also lists what it can load, as
    ``name/model``; one with a model of its own is that model, so nothing need be asked.
    """
    allowed = [target for name, target in sorted(table.targets.items()) if rule.allows(target)]
    entries = [_entry(target.name, target, "llamactl") for target in allowed]
    routers = [target for target in allowed if target.is_ready and target.served_model is None]
    for target, names in zip(
        routers,
        await asyncio.gather(*(_models_of(target, upstream) for target in routers)),
        strict=True,
    ):
        entries += [_entry(f"{target.name}/{name}", target, target.name) for name in names]
    return orjson.dumps({"object": "list", "data": entries})


def _entry(name: str, target: Target, owner: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": target.created, "owned_by": owner}


async def _models_of(target: Target, upstream: Upstream) -> list[str]:
    """The backend's own models; none where it doesn't answer sensibly in time."""
    headers: CIMultiDict[str] = CIMultiDict()
    if target.authorization is not None:
        headers["Authorization"] = target.authorization
    try:
        async with asyncio.timeout(ROUTER_TIMEOUT_SECONDS):
            response = await upstream.open(
                target, method="GET", path_and_query="/v1/models", headers=headers, body=b""
            )
            async with response:
                document: Any = orjson.loads(await response.read())
    except (BackendError, TimeoutError, aiohttp.ClientError, orjson.JSONDecodeError):
        return []
    data = document.get("data") if isinstance(document, dict) else None
    entries = data if isinstance(data, list) else []
    names = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    return sorted(name for name in names if isinstance(name, str))
