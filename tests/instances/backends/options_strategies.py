"""Random options for a backend, as hypothesis strategies.

Each strategy is made once: to make one takes longer than to draw a value.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from hypothesis import strategies as st

from instances.backends.base import Backend
from instances.backends.extra_args import extra_key
from instances.backends.flags import SWITCH_WORDS, Flag, FlagType, Many
from instances.backends.values import is_flag_like

PLAIN = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(32)), "\x7f"]),
    max_size=30,
)
PROSE = st.text(
    st.one_of(st.sampled_from("\n\t\r'\"\\ "), st.characters(min_codepoint=32, codec="utf-8")),
    max_size=30,
).filter(lambda text: "\x7f" not in text)
TRICKY = st.sampled_from(
    [
        "-1",
        "-0.5",
        "-x",
        "-",
        "a b",
        "it's",
        '"quoted"',
        "back\\slash",
        "$HOME",
        "`id`",
        "a;b|c&d",
        "#tag",
        "&",
        "true",
        "false",
        "x=y",
        "*",
        "~/models",
        "blk\\.(1|2)=CPU",
        '{"a":1}',
        "[1,2]",
        "é 你好",
    ]
)
INTS = st.integers(-(2**63), 2**63)
NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), INTS)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | INTS | st.floats(allow_nan=False, allow_infinity=False) | PROSE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PROSE, inner, max_size=3),
    max_leaves=5,
)
WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8)


@cache
def values_of(flag: Flag) -> st.SearchStrategy[Any]:
    """Values that an operator may give for a flag, in any of the accepted forms."""
    texts = ((PROSE if flag.prose else PLAIN) | TRICKY).filter(lambda text: text != "--")
    match flag.kind:
        case FlagType.BOOL:
            return st.booleans()
        case FlagType.INT:
            numbers: st.SearchStrategy[Any] = st.integers(
                max(flag.low, -(2**40)), min(flag.high, 2**40)
            )
            words = [*flag.words, *(["32k", "1.5M"] if flag.scaled else [])]
            return numbers | st.sampled_from(words) if words else numbers
        case FlagType.FLOAT:
            return NUMBERS
        case FlagType.SWITCH:
            return st.booleans() | st.sampled_from(sorted(SWITCH_WORDS))
        case FlagType.JSON:
            return (
                st.dictionaries(PROSE, JSON_VALUES, max_size=3)
                | st.lists(JSON_VALUES, max_size=3)
                | JSON_VALUES.map(json.dumps)
            )
        case FlagType.LIST:
            if flag.many is Many.SPAN:
                texts = texts.filter(lambda text: not is_flag_like(text))
            return st.lists(texts, max_size=4) | texts
        case FlagType.TEXT:
            if flag.pair:
                return st.lists(WORDS, min_size=2, max_size=2)
            if flag.bare:
                return texts | st.booleans()
            return texts | st.lists(WORDS, max_size=3) if flag.commas else texts


@cache
def extra_args_of(backend: Backend) -> st.SearchStrategy[dict[str, Any]]:
    """Flags that the backend's table does not know, with values in any of the accepted forms."""
    keys = st.from_regex(r"-?[a-zA-Z][a-zA-Z0-9_.-]{0,12}", fullmatch=True).filter(
        lambda key: (
            backend.table.find(extra_key(key, "")) is None
            and backend.table.find_attached(key) is None
        )
    )
    texts = (PROSE | TRICKY).filter(lambda text: text != "--")
    if not backend.table.equals:
        texts = texts.filter(lambda text: not is_flag_like(text))
    single = texts | st.none() | st.booleans() | NUMBERS
    return st.dictionaries(keys, single | st.lists(single, max_size=4), max_size=3).filter(
        lambda extra: len({extra_key(key, "") for key in extra}) == len(extra)
    )


@st.composite
def options_of(draw: st.DrawFn, backend: Backend) -> dict[str, Any]:
    """Options as an operator might say them: canonical names, a few unknown ones."""
    flags = draw(
        st.lists(
            st.sampled_from(list(backend.table.flags.values())),
            max_size=8,
            unique_by=lambda flag: flag.name,
        )
    )
    chosen = {flag.name for flag in flags}
    options = {
        flag.name: draw(values_of(flag))
        for flag in flags
        # "mmap" and "no_mmap" together would contradict each other
        if backend.table.opposites.get(flag.name) not in chosen
    }
    extra = draw(extra_args_of(backend))
    if draw(st.booleans()):
        return {**options, **extra}
    return {**options, "extra_args": extra}
