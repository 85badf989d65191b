"""Setters: the effect of a value on xllamacpp's parameters, by the names in ``flags.txt``."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from .kinds import EXPERTS
else:
    from kinds import EXPERTS

Setter = Callable[[Any, str, Any], None]
"""A function of a ``CommonParams``, the path of an attribute and the value."""


def _get(params: Any, path: str) -> Any:
    for name in path.split("."):
        params = getattr(params, name)
    return params


def _set(params: Any, path: str, value: Any) -> None:
    parent, _, name = path.rpartition(".")
    setattr(_get(params, parent) if parent else params, name, value)


def enum_of(name: str) -> Any:
    return getattr(importlib.import_module("xllamacpp"), name)


def assign(params: Any, path: str, value: Any) -> None:
    _set(params, path, value)


def opposite(params: Any, path: str, value: Any) -> None:
    _set(params, path, not value)


def extend(params: Any, path: str, value: Sequence[Any]) -> None:
    """Add to a list or set; xllamacpp returns copies, so the whole is assigned."""
    current = _get(params, path)
    _set(params, path, type(current)([*current, *value]))


def fill(params: Any, path: str, value: Sequence[float]) -> None:
    """Set the first elements of an array and leave the rest."""
    current = _get(params, path)
    if len(value) > len(current):
        raise ValueError(f"takes at most {len(current)} values")
    _set(params, path, [*value, *current[len(value) :]])


def sampling(params: Any, path: str, value: Any) -> None:
    """Set a sampling default and mark it as the user's, or the model's advice replaces it."""
    marks = enum_of("common_params_sampling_config")
    setattr(params.sampling, path, value)
    params.sampling.user_sampling_config |= marks[f"COMMON_PARAMS_SAMPLING_CONFIG_{path.upper()}"]


def last_tokens(params: Any, path: str, value: int) -> None:
    sampling(params, path, value)
    params.sampling.n_prev = max(params.sampling.n_prev, value)


def context(params: Any, path: str, value: int) -> None:
    _set(params, path, value)
    if value == 0:  # means the model's whole context, which --fit must not make smaller
        params.fit_params_min_ctx = -1


def override(params: Any, path: str, value: str) -> None:
    """Add ``pattern=buffer`` pairs to a list of tensor overrides."""
    _set(params, path, ",".join(filter(None, [_get(params, path), value])))


def experts(params: Any, path: str, value: bool) -> None:
    override(params, path, f"{EXPERTS}=CPU" if value else "")


def adapters(params: Any, path: str, value: Sequence[tuple[str, float]]) -> None:
    extend(params, path, [enum_of("CommonAdapterLoraInfo")(name, scale) for name, scale in value])


def reranking(params: Any, path: str, value: bool) -> None:
    if value:
        params.embedding = True
        _set(params, path, enum_of("llama_pooling_type").LLAMA_POOLING_TYPE_RANK)


def old_load_mode(params: Any, path: str, value: bool) -> None:
    """Set the load mode by ``--mmap``, ``--mlock`` or ``--direct-io``, its older flags."""
    mode = params.load_mode.name.removeprefix("LLAMA_LOAD_MODE_")
    if path == "MMAP":
        mode = "MMAP" if value else "MLOCK" if "MLOCK" in mode else "NONE"
    elif value:
        mode = path if path == "DIRECT_IO" or mode in ("NONE", "MLOCK") else f"MMAP_{path}"
    params.load_mode = enum_of("llama_load_mode")[f"LLAMA_LOAD_MODE_{mode}"]


def verbose(params: Any, path: str, value: bool) -> None:
    _set(params, path, 2**31 - 1 if value else 3)


def template_argument(params: Any, path: str, value: Any) -> None:
    arguments = {**params.default_template_kwargs, path: json.dumps(value)}
    if (path, value) == ("reasoning_effort", "default"):
        del arguments[path]
    params.default_template_kwargs = arguments


def template_arguments(params: Any, _path: str, value: Mapping[str, Any]) -> None:
    for name, argument in value.items():
        template_argument(params, name, argument)


def reasoning(params: Any, path: str, value: int) -> None:
    _set(params, path, value)
    if value >= 0:
        template_argument(params, "enable_thinking", bool(value))


def grammar(params: Any, path: str, value: str, kind: str = "USER") -> None:
    _get(params, path).type = enum_of("common_grammar_type")[f"COMMON_GRAMMAR_TYPE_{kind}"]
    _get(params, path).grammar = value


def schema(params: Any, path: str, value: str) -> None:
    grammar(params, path, enum_of("json_schema_to_grammar")(value), "OUTPUT_FORMAT")


def ignored(_params: Any, path: str, _value: Any) -> None:
    sys.stderr.write(f"warning: {path} has no effect in the embedded server\n")


SETTERS: dict[str, Setter] = {
    "opposite": opposite,
    "extend": extend,
    "fill": fill,
    "sampling": sampling,
    "last-tokens": last_tokens,
    "context": context,
    "override": override,
    "experts": experts,
    "adapters": adapters,
    "reranking": reranking,
    "old-load-mode": old_load_mode,
    "verbose": verbose,
    "template-argument": template_argument,
    "template-arguments": template_arguments,
    "reasoning": reasoning,
    "grammar": grammar,
    "schema": schema,
    "ignored": ignored,
}
