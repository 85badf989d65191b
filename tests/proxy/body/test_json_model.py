"""The ``model`` of JSON documents: parsed ones, and those that are scanned."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamactl.core.errors import InvalidRequest
from llamactl.core.turns import TURN_SECONDS, Turns, at_once
from proxy.body.json_model import PARSED_BYTES, JsonModel, json_model, parsed_model, scan
from proxy.body.json_scan import MAX_DEEP_BRACKETS, MAX_MEMBERS
from tests.support.loop_stall import (
    MAX_STALL_SECONDS,
    max_memory_bytes,
    measured_memory,
    measured_stall,
)

READERS = [
    pytest.param(parsed_model, id="parsed"),
    pytest.param(lambda body: at_once(scan(body)), id="scanned"),
]


def with_model(body: bytes, model: str) -> bytes:
    """The body with another model, which both readers must place alike."""
    parsed = parsed_model(body).replaced(body, model)
    assert at_once(scan(body)).replaced(body, model) == parsed
    return parsed


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"model": "a"} x', "not JSON"),
        (b'{"model":"a"', "not JSON"),
        (b'{"model":"a\\', "not JSON"),
        (b'{"model":"a",}', "not JSON"),
        (b'{"model" "a"}', "not JSON"),
        (b'{"model":}', "not JSON"),
        (b'{"model":"a" "b":1}', "not JSON"),
        (b'{"model":"a","b":[1,{]', "not JSON"),
        (b'{"model":"\xff"}', "not JSON"),
        ('{"model":"a"}'.encode("utf-16"), "not JSON"),
        (b'\xef\xbb\xbf{"model":"a"}', "not JSON"),
        (b"[]", "JSON object"),
        (b'"text"', "JSON object"),
        (b"{}", "Model name is required"),
        (b'{"model": null}', "Model name is required"),
        (b'{"model": ""}', "non-empty string"),
        (b'{"model": 3}', "non-empty string"),
        (b'{"model": {"a": 1}}', "non-empty string"),
        (b'{"model":"a","model":[]}', "non-empty string"),
        (b'{"model":"' + b"a" * 1001 + b'"}', "1000 bytes"),
        (('{"model":"' + "\u00fc" * 501 + '"}').encode(), "1000 bytes"),
        (b'{"model":"' + b"\\u00fc" * 501 + b'"}', "1000 bytes"),
    ],
)
def test_body_without_a_usable_model_says_what_is_wrong(read: Any, body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read(body)


def test_only_the_value_of_the_top_level_model_is_replaced() -> None:
    body = b'{ "a":{"model":"inner"}, "model" :  "old", "n": 1234567890123456789012, "x":["model"]}'
    assert with_model(body, "new") == (
        b'{ "a":{"model":"inner"}, "model" :  "new", "n": 1234567890123456789012, "x":["model"]}'
    )


def test_value_that_is_the_word_model_is_not_taken_for_the_key() -> None:
    assert with_model(b'{"a":"model","model":"old"}', "n") == b'{"a":"model","model":"n"}'


def test_escaped_and_repeated_keys_are_all_replaced() -> None:
    # It should leave no spelling by which a backend could read another model than was authorised.
    body = b'{"mod\\u0065l":"one","model":"two"}'
    assert json.loads(with_model(body, "new")) == {"model": "new"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (rb'{"a\"model":1,"model":"old"}', rb'{"a\"model":1,"model":"n"}'),
        (b'{"MODEL":"other","model":"old"}', b'{"MODEL":"other","model":"n"}'),
        (rb'{"x":"\"model\":\"old\"", "model":"old"}', rb'{"x":"\"model\":\"old\"", "model":"n"}'),
        (
            b'{"m":[{"model":"in"}],"mod\\u0065l":"old"}',
            b'{"m":[{"model":"in"}],"mod\\u0065l":"n"}',
        ),
        (b'{"input":[' + b"1," * 2**20 + b'1],"model":"old"}', None),
    ],
)
def test_text_that_resembles_the_key_is_left_alone(body: bytes, expected: bytes | None) -> None:
    assert with_model(body, "n") == (expected or body.replace(b"old", b"n"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("model"), inner),
    max_leaves=20,
)


@pytest.mark.slow
@given(
    document=st.dictionaries(st.text(), json_values),
    old=st.text(min_size=1),
    new=st.text(min_size=1),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_replacing_the_model_changes_nothing_else(
    document: dict, old: str, new: str, indent: int | None, ascii_only: bool
) -> None:
    document["model"] = old
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    try:
        body = text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate is no JSON that model_in accepts
    try:
        assert parsed_model(body).model == old
    except InvalidRequest:
        return  # an escaped lone surrogate, likewise
    assert at_once(scan(body)).model == old
    assert json.loads(with_model(body, new)) == {**document, "model": new}


@pytest.mark.parametrize("size", [1, PARSED_BYTES])
@pytest.mark.parametrize("key", [b"model", b"mod\\u0065l", b"\\u006d\\u006F\\u0064\\u0065\\u006c"])
async def test_long_and_short_documents_are_read_alike(key: bytes, size: int) -> None:
    body = (
        b'{"a":"' + b'\\"' * size + b'","' + key + b'": "d\\u0065mo/x" , "n":18446744073709551617}'
    )
    found = await json_model(body, Turns())
    assert found.model == "demo/x"
    assert found.replaced(body, "y") == body.replace(b"d\\u0065mo/x", b"y")


@pytest.mark.parametrize("offset", range(-4, 5))
@pytest.mark.parametrize("filling", [b"\\\\", b'\\"', b"ab", b" "])
def test_slices_may_end_anywhere(filling: bytes, offset: int) -> None:
    # A slice has 64 KiB; each filling is cut at every place.
    text = filling * (2**16 // len(filling)) + b"x" * (offset + 4)
    body = b'{"p":["' + text + b'",{"model":"in"}],"model":"old"}'
    found = at_once(scan(body))
    assert found == JsonModel("old", ((len(body) - 6, len(body) - 1),))


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","p":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"model":"a","p":[' + (b"[" * 9 + b"]" * 9 + b",") * (MAX_DEEP_BRACKETS // 4) + b"1]}",
        b"{" + b'"a":1,' * MAX_MEMBERS + b'"model":"a"}',
        b"{" + b'"model":"a",' * 11 + b'"b":1}',
    ],
)
def test_document_beyond_the_bounds_of_the_scan_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"too deeply|more than|too often"):
        at_once(scan(body))


SIZE = 4 * 2**20
HOSTILE = {
    "model": b'{"model":"demo/' + b"a" * SIZE + b'"}',
    "key": b'{"' + b"k" * SIZE + b'":1,"model":"demo"}',
    "escapes": b'{"model":"demo","p":"' + b"\\n" * (SIZE // 2) + b'"}',
    "digits": b'{"model":"demo","n":' + b"9" * SIZE + b"}",
    "blanks": b"{" + b" " * SIZE + b'"model":"demo"}',
    "numbers": b'{"model":"demo","p":[' + b"1," * (SIZE // 2) + b"1]}",
    "objects": b'{"model":"demo","p":[' + b'{"":1},' * (SIZE // 7) + b"1]}",
    "strings": b'{"model":"demo","p":[' + b'"",' * (SIZE // 3) + b"1]}",
    "deep": b'{"model":"demo","p":[' + (b"[" * 6 + b"]" * 6 + b",") * (SIZE // 13) + b"1]}",
    "open": b'{"model":"demo","p":' + b'{"a":' * (SIZE // 5),
    "members": b"{" + b'"":1,' * (SIZE // 5) + b'"model":"demo"}',
    "models": b"{" + b'"model":"a",' * (SIZE // 12) + b'"model":"demo"}',
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_document_stops_the_loop_or_takes_much_memory(name: str) -> None:
    body, turns = HOSTILE[name], Turns()
    with measured_memory() as memory:
        async with measured_stall() as stall:
            try:
                found = await json_model(body, turns)
            except InvalidRequest:
                pass
            else:
                assert found.model == "demo"
                assert len(found.replaced(body, "other")) == len(body) + 1
    assert stall.seconds < MAX_STALL_SECONDS
    # Of the bound the body itself is there already, and a second time where it was joined.
    assert memory.grown_bytes < max_memory_bytes(body) - 2 * len(body)


async def test_documents_take_their_turns() -> None:
    # It should not give each of many documents a turn between two callbacks of the others.
    body, turns = b'{"model":"demo","p":[' + b'{"":1},' * (SIZE // 28) + b"1]}", Turns()
    async with measured_stall() as stall, asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(turns.run(scan(body)))
    assert stall.seconds < 4 * TURN_SECONDS


def test_image_in_base64_is_passed_at_once() -> None:
    # It should take no step for each slice of a long string without backslashes.
    image = b"QUJD" * (SIZE // 4)
    body = b'{"model":"demo","p":[{"a\\"":"","url":"' + image + b'","b":"\\""}]}'
    steps = list(scan(body))
    assert len(steps) < 10
    assert at_once(scan(body)).model == "demo"


def test_document_of_the_longest_parsed_size_is_small_in_memory() -> None:
    body = b'{"p":[' + b'{"":1},' * (PARSED_BYTES // 7 - 10) + b'1],"model":"a"}'
    assert len(body) <= PARSED_BYTES
    with measured_memory() as memory:
        held = orjson.loads(body)
    assert held["model"] == "a"
    assert memory.grown_bytes < max_memory_bytes(body)
