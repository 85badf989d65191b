"""Request defaults: dropped and set fields, and every other byte as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamactl.core.errors import InvalidRequest
from llamactl.core.turns import Turns, at_once
from proxy.body.json_model import PARSED_BYTES
from proxy.body.request_defaults import RequestDefaults, splice, with_defaults
from tests.support.loop_stall import MAX_STALL_SECONDS, measured_stall


def defaults(drop: tuple[str, ...] = (), **values: object) -> RequestDefaults:
    members = {
        name: json.dumps(name).encode() + b":" + json.dumps(value).encode()
        for name, value in values.items()
    }
    return RequestDefaults(frozenset(drop), members)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", b'{"t":0.2}'),
        (b" { } ", b' {"t":0.2 } '),
        (b'{"a":1}', b'{"t":0.2,"a":1}'),
        (b'{"t":1}', b'{"t":1}'),
        (b'{"t":null}', b'{"t":0.2}'),
        (b'{"a":1,"t":null}', b'{"t":0.2,"a":1}'),
        (b'{"x":1}', b'{"t":0.2}'),
        (b'{"x":1,"a":2}', b'{"t":0.2,"a":2}'),
        (b'{"x":1,"x":2,"a":2,"x":3}', b'{"t":0.2,"a":2}'),
        (b'{"a":2,"x":{"x":[1,2]}}', b'{"t":0.2,"a":2}'),
        (b'{"a":{"x":1,"t":null}}', b'{"t":0.2,"a":{"x":1,"t":null}}'),
        (b'{"\\u0078":1,"a":1,"\\u0074":5}', b'{"a":1,"\\u0074":5}'),
        (b'{ "a" : 1e2 , "x" : "\\u00e4" , "b":12345678901234567890123 }', None),
    ],
)
def test_fields_are_dropped_and_set(body: bytes, expected: bytes | None) -> None:
    spliced = at_once(splice(body, defaults(("x",), t=0.2)))
    assert spliced == (expected or b'{"t":0.2, "a" : 1e2  , "b":12345678901234567890123 }')


def test_field_that_is_dropped_and_set_has_always_the_default() -> None:
    assert at_once(splice(b'{"t":1}', defaults(("t",), t=0.2))) == b'{"t":0.2}'


names = st.sampled_from(["a", "b", "model", "t", "x", "ä", "tt", ""])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(names, values), st.sets(names), st.dictionaries(names, values))
def test_the_result_is_that_of_parsing_and_encoding(
    document: dict[str, Any], drop: set[str], set_: dict[str, Any]
) -> None:
    spliced = at_once(splice(json.dumps(document).encode(), defaults(tuple(drop), **set_)))
    kept = {name: value for name, value in document.items() if name not in drop}
    given = {name for name, value in kept.items() if value is not None or name not in set_}
    expected = {name: kept[name] for name in given}
    assert json.loads(spliced) == {**set_, **expected}


@pytest.mark.parametrize("body", [b"", b"[1]", b'"text"', b"--B\r\n", b"  7"])
async def test_what_is_no_object_is_left_alone(body: bytes) -> None:
    assert await with_defaults(body, defaults(("x",), t=1), Turns()) is body


@pytest.mark.parametrize("body", [b"{", b'{"a"}', b'{"a":1,}', b'{"a":1}x'])
async def test_broken_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await with_defaults(body, defaults(t=1), Turns())


async def test_large_body_stalls_no_other_request() -> None:
    body = b'{"x":"' + b"y" * 2**24 + b'","n":[' + b"1," * 2**20 + b'1],"m":1}'
    assert len(body) > PARSED_BYTES
    async with measured_stall() as stall:
        spliced = await with_defaults(body, defaults(("m",), t=1), Turns())
    assert spliced.startswith(b'{"t":1,"x":"yyy')
    assert spliced.endswith(b",1]}")
    assert stall.seconds < MAX_STALL_SECONDS
