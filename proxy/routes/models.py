"""GET /v1/models: the models that a key may use, in the shape of OpenAI or Anthropic.

OpenAI's shape has the further fields of llama.cpp's router and of llama-swap, from which clients
learn a model's context length and abilities without loading it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from instances import desired_state
from instances.model_info import UNKNOWN_MODEL, ModelInfo, facts_of, info_from
from instances.states import Status
from proxy.errors import InstanceNotPermitted, ModelNotFound
from proxy.routes.backend_json import get_json
from proxy.table.table import KeyRule, RoutingTable, Target
from proxy.upstream import Upstream

ROUTER_STATES = frozenset({"loaded", "loading", "unloaded", "sleeping", "downloading"})
"""Those of llama.cpp's router."""

ContextLength = Callable[[Target], int | None]
"""The context length of an instance's model, of the best source there is."""


class Model(NamedTuple):
    """One entry of the list."""

    id: str
    created: int
    """Unix seconds."""
    owner: str
    status: Mapping[str, object]
    aliases: tuple[str, ...] = ()
    info: ModelInfo = UNKNOWN_MODEL
    context_length: int | None = None

    @property
    def openai(self) -> dict[str, object]:
        """The entry in OpenAI's shape."""
        info, length = self.info, self.context_length
        entry: dict[str, object] = {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": self.owner,
            "aliases": self.aliases,
            "status": self.status,
            "architecture": {
                "input_modalities": info.input_modalities,
                "output_modalities": info.output_modalities,
            },
            "capabilities": _capabilities(info),
        }
        if info.has_tools:
            entry["supported_parameters"] = ("tools", "tool_choice")
        if length is not None:
            entry |= {"context_length": length, "max_model_len": length}
            entry["meta"] = {**info.meta, "n_ctx": length}
        elif info.meta:
            entry["meta"] = info.meta
        return entry


def _capabilities(info: ModelInfo) -> dict[str, bool]:
    found = {
        "completion": not (info.is_embedding or info.is_reranker),
        "embedding": info.is_embedding,
        "reranking": info.is_reranker,
        "vision": "image" in info.input_modalities,
        "audio": "audio" in info.input_modalities,
    }
    return found if info.has_tools is None else {**found, "function_calling": info.has_tools}


def openai_list(models: list[Model]) -> dict[str, object]:
    return {"object": "list", "data": [model.openai for model in models]}


async def list_models(
    table: RoutingTable, rule: KeyRule, upstream: Upstream, length_of: ContextLength
) -> list[Model]:
    """The models, sorted by name, each followed by its aliases.

    An instance in router mode (no model of its own) is followed by the models that it can load, as
    ``name/model``. An instance with a model of its own is that model: no backend is asked.
    """
    permitted = [target for name, target in sorted(table.targets.items()) if rule.allows(target)]
    models = [model for target in permitted for model in _listed(target, length_of)]
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


async def model_of(
    target: Target, upstream: Upstream, model: str, length_of: ContextLength
) -> Model:
    """The list's entry with this id. Raises ModelNotFound if there is none."""
    if _is_own(target, model):
        return _own(target, model, length_of)
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


def _listed(target: Target, length_of: ContextLength) -> list[Model]:
    aliases = target.aliases if target.lists_aliases else ()
    return [_own(target, name, length_of) for name in (target.name, *aliases)]


def _own(target: Target, name: str, length_of: ContextLength) -> Model:
    aliases = target.aliases if target.lists_aliases and name == target.name else ()
    return Model(
        id=name,
        created=target.created,
        owner="llamactl",
        status=_status(target),
        aliases=aliases,
        info=target.info,
        context_length=length_of(target),
    )


def _status(target: Target) -> dict[str, object]:
    if target.is_ready:
        return {"value": "loaded"}
    if desired_state.should_run(target):
        return {"value": "loading"}
    failed = {"failed": True} if target.status is Status.FAILED else {}
    return {"value": "unloaded", **failed}


async def _router_models(target: Target, upstream: Upstream) -> list[Model]:
    """The entries of a router's models; none if it gives no valid answer in time."""
    document = await get_json(target, upstream, "/v1/models")
    data = document.get("data") if isinstance(document, dict) else None
    entries = data if isinstance(data, list) else []
    named = {
        name: entry
        for entry in entries
        if isinstance(entry, dict) and isinstance(name := entry.get("id"), str)
    }
    return [_of_router(target, name, named[name]) for name in sorted(named)]


def _of_router(target: Target, name: str, entry: Mapping[str, object]) -> Model:
    """The entry of one of a router's models, of whose answer only known facts are passed on."""
    info = info_from(facts_of({"data": [entry]}, None))
    status = entry.get("status")
    value = status.get("value") if isinstance(status, dict) else None
    is_known = isinstance(value, str) and value in ROUTER_STATES
    shown: dict[str, object] = {"value": value if is_known else "loaded"}
    if isinstance(status, dict) and status.get("failed") is True:
        shown = {**shown, "failed": True}
    return Model(
        id=f"{target.name}/{name}",
        created=target.created,
        owner=target.name,
        status=shown,
        info=info,
        context_length=info.context_length,
    )
