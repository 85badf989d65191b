"""GET /v1/models: the models that a key may use, in the shape of OpenAI or Anthropic."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import orjson

from proxy.errors import InstanceNotPermitted, ModelNotFound
from proxy.headers import to_backend
from proxy.table.table import KeyRule, RoutingTable, Target
from proxy.upstream import BackendError, Upstream

ROUTER_TIMEOUT_SECONDS = 2.0
MAX_LIST_BYTES = 2**20
MAX_LIST_VALUES = 20_000
"""A model of llama.cpp's router has about forty. A document of 1 MiB may have 300,000, and take
30 MB and 20 ms of the event loop."""


class Model(NamedTuple):
    """One entry of the list."""

    id: str
    created: int
    """Unix seconds."""
    owner: str

    @property
    def openai(self) -> dict[str, object]:
        """The entry in OpenAI's shape."""
        created = self.created
        return {"id": self.id, "object": "model", "created": created, "owned_by": self.owner}


def openai_list(models: list[Model]) -> dict[str, object]:
    return {"object": "list", "data": [model.openai for model in models]}


async def list_models(table: RoutingTable, rule: KeyRule, upstream: Upstream) -> list[Model]:
    """The models, sorted by name, each followed by its aliases.

    An instance in router mode (no model of its own) is followed by the models that it can load, as
    ``name/model``. An instance with a model of its own is that model: no backend is asked.
    """
    permitted = [target for name, target in sorted(table.targets.items()) if rule.allows(target)]
    models = [model for target in permitted for model in _listed(target)]
    routers = [target for target in permitted if _is_ready_router(target)]
    for further in await asyncio.gather(*(_router_models(target, upstream) for target in routers)):
        models += further
    return models


def find_model(table: RoutingTable, rule: KeyRule, model: str) -> Target:
    """The instance of a model id. Raises ModelNotFound or InstanceNotPermitted."""
    found = table.route(model)
    if found is None:
        raise ModelNotFound(model)
    target, _ = found
    if not rule.allows(target):
        raise InstanceNotPermitted
    if not _is_own(target, model) and not _is_ready_router(target):
        raise _not_listed(target, model)
    return target


async def model_of(target: Target, upstream: Upstream, model: str) -> Model:
    """The list's entry with this id. Raises ModelNotFound if there is none."""
    if _is_own(target, model):
        return _own(target, model)
    for each in await _router_models(target, upstream):
        if each.id == model:
            return each
    raise _not_listed(target, model)


def _is_ready_router(target: Target) -> bool:
    return target.is_ready and target.served_model is None


def _not_listed(target: Target, model: str) -> ModelNotFound:
    return ModelNotFound(model, f"instance {target.name} lists no such model at present")


def _is_own(target: Target, model: str) -> bool:
    """Whether the id is a name of the instance itself; an alias is one, listed or not."""
    return model == target.name or model in target.aliases


def _listed(target: Target) -> list[Model]:
    aliases = target.aliases if target.lists_aliases else ()
    return [_own(target, name) for name in (target.name, *aliases)]


def _own(target: Target, name: str) -> Model:
    return Model(name, target.created, "llamactl")


async def _router_models(target: Target, upstream: Upstream) -> list[Model]:
    """The entries of a router's models; none if it gives no valid answer in time."""
    try:
        async with asyncio.timeout(ROUTER_TIMEOUT_SECONDS):
            answer = await upstream.open(
                target,
                method="GET",
                path_and_query="/v1/models",
                headers=to_backend((), target.authorization),
                body=b"",
                # On a connection that the backend is closing just now the models would be lost.
                fresh=True,
            )
            with answer:
                body = await answer.read_whole(MAX_LIST_BYTES)
        if sum(map(body.count, (b",", b":", b"[", b"{"))) > MAX_LIST_VALUES:
            return []
        document: Any = orjson.loads(body)
    except (BackendError, TimeoutError, orjson.JSONDecodeError):
        return []
    data = document.get("data") if isinstance(document, dict) else None
    entries = data if isinstance(data, list) else []
    names = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    return [
        Model(f"{target.name}/{name}", target.created, target.name)
        for name in sorted(name for name in names if isinstance(name, str))
    ]
