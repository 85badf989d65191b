"""What do the flags of ``llama-server`` mean for xllamacpp's parameters?

``flags.txt`` is the whole answer: a line a flag, with its names, the kind of its value, the
attribute of ``xllamacpp.CommonParams`` that it sets and the environment variable that stands for
it; this module reads it. Names, meanings and defaults are those of llama-server
(``common/arg.cpp`` in llama.cpp).

Left out: tools, agents and MCP servers, whose helper processes would outlive a stop; the router,
which xllamacpp does without; and what its parameters can't hold (``--device``, ``--override-kv``,
``--logit-bias``, control vectors, details of some samplers).
"""

from __future__ import annotations

import csv
import difflib
import importlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INSTALL_HINT = (
    "The embedded llama.cpp server knows the common flags; for all of them install llama-server "
    "or set backends.llama-cpp.command."
)


class StartError(Exception):
    """Why the server can't be started, as a sentence for the operator."""


# Kinds of value: how the text of an argument is read.


@dataclass(frozen=True, slots=True)
class Kind:
    """Reads the text of a value, or raises ValueError; ``rule`` completes "must be …"."""

    rule: str
    read: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of one of xllamacpp's enums, by name: so parsing need not load xllamacpp."""

    enum: str
    name: str


def between(low: int, high: int) -> Kind:
    def read(text: str) -> int:
        if not low <= (value := int(text)) <= high:
            raise ValueError
        return value

    return Kind(f"a whole number from {low} to {high}", read)


def word(enum: str, words: str, prefix: str = "") -> Kind:
    """One of ``words``, each a member of ``enum``: its own upper case, or ``word:MEMBER``."""
    prefix = prefix or f"{enum.upper()}_"
    pairs = (text.partition(":") for text in words.split())
    members = {name: member or name.upper().replace("-", "_") for name, _, member in pairs}

    def read(text: str) -> Member:
        if text not in members:
            raise ValueError
        return Member(enum, prefix + members[text])

    return Kind(f"one of {', '.join(members)}", read)


def list_of(kind: Kind) -> Kind:
    def read(text: str) -> list[Any]:
        return [kind.read(field.strip()) for field in next(csv.reader([text]), []) if field.strip()]

    return Kind(f"a comma-separated list, each {kind.rule}", read)


def on_cpu(weights: str) -> Kind:
    """Of how many layers the matching weights stay in main memory; read as a tensor override."""

    def read(text: str) -> str:
        return ",".join(rf"blk\.{layer}{weights}=CPU" for layer in range(int(COUNT.read(text))))

    return Kind("a whole number", read)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


def _positive(text: str) -> float:
    if (value := _finite(text)) <= 0:
        raise ValueError
    return value


def _switch(text: str) -> bool:
    on, off = ("on", "enabled", "true", "1"), ("off", "disabled", "false", "0")
    if text not in on + off:
        raise ValueError
    return text in on


def _three_way(text: str) -> int:
    return -1 if text in ("auto", "-1") else int(_switch(text))


def _file(text: str) -> str:
    try:
        return Path(text).read_text("utf-8")
    except OSError as error:
        raise ValueError from error


def _path(text: str) -> str:
    if not os.access(text, os.R_OK):
        raise ValueError
    return text


def _keys(text: str) -> list[str]:
    return [key for key in _file(text).splitlines() if key and not key.startswith("#")]


def _folder(text: str) -> str:
    if not Path(text).is_dir():
        raise ValueError
    return f"{text.rstrip('/')}/"


def _object(text: str) -> dict[str, Any]:
    if not isinstance(document := json.loads(text), dict):
        raise ValueError
    return document


def _scaled(text: str) -> tuple[str, float]:
    name, _, scale = text.rpartition(":")
    return name, _finite(scale)


def _unless_zero(text: str) -> int:
    if (value := int(text)) == 0 or value < -1:
        raise ValueError
    return value


def _threads(text: str) -> int:
    return value if (value := int(text)) > 0 else os.cpu_count() or 1


def _layers(text: str) -> int:
    return {"auto": -1, "all": -2}[text] if text in ("auto", "all") else int(text)


def _mebibytes(text: str) -> list[int]:
    sizes = [int(COUNT.read(size)) * 2**20 for size in re.split("[,/]+", text)]
    return sizes * 16 if len(sizes) == 1 else sizes


def _sampler_letters(text: str) -> str:
    names = dict(zip("dkypsmtxiea", SAMPLERS.split(), strict=True))
    if not set(text) <= set(names):
        raise ValueError
    return ";".join(names[letter] for letter in text)


SAMPLERS = "dry top_k typ_p top_p top_n_sigma min_p temperature xtc infill penalties adaptive_p"
EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
SWITCH = Kind("on or off", _switch)
COUNT = between(0, 2**31 - 1)
TEXT = Kind("a text", str)
FLASH = word("llama_flash_attn_type", "on:ENABLED off:DISABLED auto true:ENABLED false:DISABLED")

KINDS: dict[str, Kind] = {
    "switch": SWITCH,
    "on-off": Kind(SWITCH.rule, _switch),
    "text": TEXT,
    "texts": list_of(TEXT),
    "one": Kind("a text", lambda text: [text]),
    "file": Kind("a text file that can be read", _file),
    "path": Kind("a file that can be read", _path),
    "keys": Kind("a text file that can be read", _keys),
    "folder": Kind("an existing directory", _folder),
    "object": Kind("a JSON object", _object),
    "whole": between(-(2**31), 2**31 - 1),
    "count": COUNT,
    "port": between(0, 65535),
    "percent": between(0, 100),
    "not-zero": Kind("-1 or a whole number above 0", _unless_zero),
    "number": Kind("a number", _finite),
    "above-0": Kind("a number above 0", _positive),
    "inverse": Kind("a number above 0", lambda text: 1 / _positive(text)),
    "heat": Kind("a number", lambda text: max(_finite(text), 0.0)),
    "threads": Kind("a whole number", _threads),
    "seed": Kind("a whole number", lambda text: int(text) % 2**32),
    "layers": Kind("a whole number, auto or all", _layers),
    "shares": Kind("numbers as 3,1", lambda text: [_finite(n) for n in re.split("[,/]+", text)]),
    "mebibytes": Kind("whole numbers as 512,1024", _mebibytes),
    "experts": on_cpu(EXPERTS),
    "dense": on_cpu(r"\.ffn_(up|down|gate)\."),
    "letters": Kind("letters of dkypsmtxiea", _sampler_letters),
    "adapters": list_of(Kind("a file", lambda path: (path, 1.0))),
    "scaled": list_of(Kind("FILE:SCALE", _scaled)),
    "three-way": Kind("on, off or auto", _three_way),
    "flash": FLASH,
    "cache": word("ggml_type", "f32 f16 bf16 q8_0 q4_0 q4_1 iq4_nl q5_0 q5_1"),
    "pooling": word("llama_pooling_type", "none mean cls last rank"),
    "rope": word("llama_rope_scaling_type", "none linear yarn"),
    "split": word("llama_split_mode", "none layer row tensor"),
    "load": word("llama_load_mode", "auto none mmap mlock mmap+mlock:MMAP_MLOCK dio:DIRECT_IO"),
    "lazy": word("llama_lazy_mode", "on auto off"),
    "numa": word("ggml_numa_strategy", "distribute isolate numactl"),
    "priority": word(
        "ggml_sched_priority", "-1:LOW 0:NORMAL 1:MEDIUM 2:HIGH 3:REALTIME", "GGML_SCHED_PRIO_"
    ),
    "thinking": word("common_reasoning_format", "none auto deepseek deepseek-legacy"),
    "speculation": list_of(
        word(
            "common_speculative_type",
            "none draft-simple draft-eagle3 draft-mtp draft-dflash draft-dspark"
            " ngram-simple ngram-map-k ngram-map-k4v ngram-mod ngram-cache",
        )
    ),
}


# Targets: what a value does to the parameters.

Put = Callable[[Any, str, Any], None]
"""Called with a ``CommonParams``, the target's path and the value."""


def _get(params: Any, path: str) -> Any:
    for name in path.split("."):
        params = getattr(params, name)
    return params


def _set(params: Any, path: str, value: Any) -> None:
    parent, _, name = path.rpartition(".")
    setattr(_get(params, parent) if parent else params, name, value)


def _enum(name: str) -> Any:
    return getattr(importlib.import_module("xllamacpp"), name)


def assign(params: Any, path: str, value: Any) -> None:
    _set(params, path, value)


def opposite(params: Any, path: str, value: Any) -> None:
    _set(params, path, not value)


def extend(params: Any, path: str, value: Sequence[Any]) -> None:
    """Add to a list or set; xllamacpp hands out copies, so it is assigned anew."""
    there = _get(params, path)
    _set(params, path, type(there)([*there, *value]))


def fill(params: Any, path: str, value: Sequence[float]) -> None:
    """Set the first elements of an array and leave the rest."""
    there = _get(params, path)
    if len(value) > len(there):
        raise ValueError(f"takes at most {len(there)} values")
    _set(params, path, [*value, *there[len(value) :]])


def wish(params: Any, path: str, value: Any) -> None:
    """Set a sampling default and mark it as wished, else the model's own advice replaces it."""
    marks = _enum("common_params_sampling_config")
    setattr(params.sampling, path, value)
    params.sampling.user_sampling_config |= marks[f"COMMON_PARAMS_SAMPLING_CONFIG_{path.upper()}"]


def last_tokens(params: Any, path: str, value: int) -> None:
    wish(params, path, value)
    params.sampling.n_prev = max(params.sampling.n_prev, value)


def context(params: Any, path: str, value: int) -> None:
    _set(params, path, value)
    if value == 0:  # all of the model's context was asked for: --fit may not make it smaller
        params.fit_params_min_ctx = -1


def override(params: Any, path: str, value: str) -> None:
    """Add ``pattern=buffer`` pairs to a list of tensor overrides."""
    _set(params, path, ",".join(filter(None, [_get(params, path), value])))


def experts(params: Any, path: str, value: bool) -> None:
    override(params, path, f"{EXPERTS}=CPU" if value else "")


def adapters(params: Any, path: str, value: Sequence[tuple[str, float]]) -> None:
    extend(params, path, [_enum("CommonAdapterLoraInfo")(name, scale) for name, scale in value])


def reranking(params: Any, path: str, value: bool) -> None:
    if value:
        params.embedding = True
        _set(params, path, _enum("llama_pooling_type").LLAMA_POOLING_TYPE_RANK)


def old_load_mode(params: Any, path: str, value: bool) -> None:
    """``--mmap``, ``--mlock``, ``--direct-io``: what there was before ``--load-mode``."""
    mode = params.load_mode.name.removeprefix("LLAMA_LOAD_MODE_")
    if path == "MMAP":
        mode = "MMAP" if value else "MLOCK" if "MLOCK" in mode else "NONE"
    elif value:
        mode = path if path == "DIRECT_IO" or mode in ("NONE", "MLOCK") else f"MMAP_{path}"
    params.load_mode = _enum("llama_load_mode")[f"LLAMA_LOAD_MODE_{mode}"]


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
    _get(params, path).type = _enum("common_grammar_type")[f"COMMON_GRAMMAR_TYPE_{kind}"]
    _get(params, path).grammar = value


def schema(params: Any, path: str, value: str) -> None:
    grammar(params, path, _enum("json_schema_to_grammar")(value), "OUTPUT_FORMAT")


def ignored(_params: Any, path: str, _value: Any) -> None:
    sys.stderr.write(f"warning: {path} has no effect in the embedded server\n")


PUTS: dict[str, Put] = {
    "opposite": opposite,
    "extend": extend,
    "fill": fill,
    "wish": wish,
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


# The flags and the command line.


@dataclass(frozen=True, slots=True)
class Flag:
    names: tuple[str, ...]
    off: tuple[str, ...]
    """Names that switch it off."""
    kind: Kind
    put: Put
    paths: tuple[str, ...]
    variable: str
    """The environment variable that stands for it; may be empty."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A flag as it was given; ``name`` is what the user wrote: a flag's name or a variable's."""

    name: str
    flag: Flag
    value: Any

    def apply(self, params: Any) -> None:
        """Put the value into a ``CommonParams``; raises StartError if that refuses it."""
        many = isinstance(self.value, list)
        try:
            value = [_resolve(one) for one in self.value] if many else _resolve(self.value)
            for path in self.flag.paths:
                self.flag.put(params, path, value)
        except (ValueError, TypeError, OverflowError) as refusal:
            raise StartError(f"invalid value for {self.name}: {refusal}.") from refusal
        except (AttributeError, KeyError) as missing:
            raise StartError(
                f"unknown argument to this xllamacpp: {self.name} ({missing})"
            ) from missing


def _resolve(value: Any) -> Any:
    return _enum(value.enum)[value.name] if isinstance(value, Member) else value


def read_table(table: str) -> Iterator[Flag]:
    for line in table.splitlines():
        if not line or line.startswith("#"):
            continue
        names, kind, target, variable = (cell.strip() for cell in line.split("|"))
        names, _, off = names.partition("/")
        how, colon, paths = target.rpartition(":")
        yield Flag(
            names=tuple(names.split()),
            off=tuple(off.split()),
            kind=KINDS[kind],
            put=PUTS[how] if colon else assign,
            paths=tuple(paths.split()),
            variable=variable[1:] if variable[:1] == "=" else variable and f"LLAMA_ARG_{variable}",
        )


FLAGS = tuple(read_table(Path(__file__).with_name("flags.txt").read_text("utf-8")))
BY_NAME = {name: flag for flag in FLAGS for name in (*flag.names, *flag.off)}


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> list[Setting]:
    """What environment and command line ask for, in this order: a later setting wins.

    As in llama-server, ``--a_b`` is ``--a-b``, a value may begin with a dash, and
    ``LLAMA_ARG_NO_X`` does what ``--no-x`` does. Beyond it, ``--flag=value`` is taken, and a
    lone ``--flash-attn`` means on, as it did in older releases.
    Raises StartError for what is unknown or ill-formed.
    """
    settings = list(_from_environment(environ))
    rest = list(arguments)
    while rest:
        name, equals, text = rest.pop(0).partition("=")
        name = name.replace("_", "-") if name.startswith("--") else name
        if (flag := BY_NAME.get(name)) is None:
            raise StartError(_unknown(name))
        if name in flag.off:
            settings.append(Setting(name, flag, False))
            continue
        if not equals:
            alone = not rest or rest[0].startswith("-")
            if flag.kind is SWITCH or (flag.kind is FLASH and alone):
                text = "on"
            elif rest:
                text = rest.pop(0)
            else:
                raise StartError(f"{name} needs a value, which must be {flag.kind.rule}.")
        settings.append(_setting(name, flag, text))
    return settings


def _setting(name: str, flag: Flag, text: str) -> Setting:
    try:
        return Setting(name, flag, flag.kind.read(text))
    except ValueError as error:
        refusal = f"invalid value for {name}: {text!r} must be {flag.kind.rule}."
        raise StartError(refusal) from error


def _from_environment(environ: Mapping[str, str]) -> Iterator[Setting]:
    for flag in FLAGS:
        off = flag.variable.replace("LLAMA_ARG_", "LLAMA_ARG_NO_")
        if flag.off and off in environ:
            yield Setting(off, flag, False)
        elif flag.variable in environ:
            yield _setting(flag.variable, flag, environ[flag.variable])


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, BY_NAME, n=1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown argument: {name}{guess}. {INSTALL_HINT}"


def help_text() -> str:
    """The flags, for ``--help``: a line a flag, laid out as llama-server does."""
    lines = []
    for flag in FLAGS:
        names = ", ".join((*flag.names, *flag.off))
        if flag.kind is SWITCH:
            lines.append(names)
        else:
            value = "[on|off|auto]" if flag.kind is FLASH else "VALUE"
            lines.append(f"{f'{names} {value}':<72}   {flag.kind.rule}")
    return "\n".join(lines)
