"""Kinds of value: how the text of an argument is read, by the names in ``flags.txt``."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value. ``read`` raises ValueError for a text that breaks ``rule`` ("must be …")."""

    rule: str
    read: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of one of xllamacpp's enums, by name, so that parsing does not load xllamacpp."""

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
    """A count of layers with weights to keep in main memory, read as a tensor override."""

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
