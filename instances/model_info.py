"""Facts about the model of an instance, which clients need before the model is loaded.

Three sources: the backend's own answers at its last run with the same launch options, the options,
and the header of the GGUF file, whose context length is an upper bound. A backend's answer is
untrusted: each fact is checked, and everything else of the answer is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from instances.backends.model_traits import ModelTraits
from instances.options import InstanceOptions

MODALITIES = ("text", "image", "audio", "video")
"""Known ones, in the order of the list."""
META = ("n_ctx", "n_ctx_train", "n_vocab", "n_embd", "n_params", "size", "vocab_type")
"""Numbers of llama.cpp's ``meta``."""
_MAX_NUMBER = 2**53
_LAUNCH_OPTIONS = tuple(InstanceOptions.at_launch())


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts about a model; ``None``: unknown."""

    context_length: int | None = None
    """Tokens of one request: of one slot, where the backend shares its context among slots."""
    meta: Mapping[str, int] = field(default_factory=dict)
    input_modalities: tuple[str, ...] = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    has_tools: bool | None = None
    is_embedding: bool = False
    is_reranker: bool = False


UNKNOWN_MODEL = ModelInfo()


def launch_digest(document: Mapping[str, object]) -> str:
    """Return a digest of the options that a process is started with, its port aside."""
    launched = {name: document.get(name) for name in _LAUNCH_OPTIONS}
    options = launched["backend_options"]
    if isinstance(options, dict):
        launched["backend_options"] = {**options, "port": None}
    return sha256(json.dumps(launched, sort_keys=True).encode()).hexdigest()[:16]


def facts_of(models: object, props: object) -> dict[str, object]:
    """Return the facts in a backend's answers to ``/v1/models`` and llama-server's ``/props``.

    ``None`` for an answer that did not come.
    """
    entry = _entry(models)
    settings = _object(_object(props).get("default_generation_settings"))
    numbers = _object(entry.get("meta"))
    meta = {name: number for name in META if (number := _number(numbers.get(name))) is not None}
    lengths = (settings.get("n_ctx"), entry.get("max_model_len"), meta.get("n_ctx"))
    facts: dict[str, object] = {"meta": meta}
    for length in map(_number, lengths):
        if length:
            facts["context_length"] = length
            break
    architecture = _object(entry.get("architecture"))
    seen = _object(_object(props).get("modalities"))
    inputs = {"image": seen.get("vision") is True, "audio": seen.get("audio") is True}
    extra = [name for name, is_there in inputs.items() if is_there]
    facts["input_modalities"] = _modalities(architecture.get("input_modalities"), extra)
    facts["output_modalities"] = _modalities(architecture.get("output_modalities"), ())
    template = _object(_object(props).get("chat_template_caps"))
    if template:
        # llama.cpp has true for what it could not find out, but not for both of them.
        names = ("supports_tools", "supports_tool_calls")
        facts["has_tools"] = all(template.get(name) is True for name in names)
    return facts


def info_of(
    document: Mapping[str, object], stored: Mapping[str, object] | None, traits: ModelTraits
) -> ModelInfo:
    """Return what is known: the stored facts of the same launch options, else the options'."""
    by_options = ModelInfo(
        context_length=traits.context_length,
        input_modalities=("text", "image") if traits.takes_images else ("text",),
        is_embedding=traits.is_embedding,
        is_reranker=traits.is_reranker,
    )
    if not stored or stored.get("launch") != launch_digest(document):
        return by_options
    return info_from(stored, by_options)


def info_from(facts: Mapping[str, object], otherwise: ModelInfo = UNKNOWN_MODEL) -> ModelInfo:
    """Return the info of the facts of ``facts_of``; what they leave out is as in ``otherwise``."""
    tools = facts.get("has_tools")
    meta = _object(facts.get("meta"))
    return ModelInfo(
        context_length=_number(facts.get("context_length")) or otherwise.context_length,
        meta={name: number for name in META if (number := _number(meta.get(name))) is not None},
        input_modalities=tuple(_modalities(facts.get("input_modalities"), ())),
        output_modalities=tuple(_modalities(facts.get("output_modalities"), ())),
        has_tools=tools if isinstance(tools, bool) else otherwise.has_tools,
        is_embedding=otherwise.is_embedding,
        is_reranker=otherwise.is_reranker,
    )


def _entry(models: object) -> Mapping[str, object]:
    """Return the model's entry: of vLLM's the one that is no adapter of another."""
    data = _object(models).get("data")
    entries = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    own = [each for each in entries if not each.get("parent")]
    return own[0] if own else {}


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _MAX_NUMBER else None


def _modalities(named: object, further: Iterable[str]) -> list[str]:
    """Return the known ones of a list, in order; text, if there is none."""
    found = {each for each in named if isinstance(each, str)} if isinstance(named, list) else set()
    found.update(further)
    return [name for name in MODALITIES if name in found or (name == "text" and not named)]
