from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamactl.core.asgi_types import Receive
from llamactl.core.errors import InvalidRequest
from proxy.body.body import ClientDisconnected, model_in, read_routed, with_model
from proxy.errors import RequestTooLarge


def receiving(*messages: dict[str, Any]) -> Receive:
    queue = list(messages)

    async def receive() -> dict[str, Any]:
        return queue.pop(0)

    return receive


async def test_body_in_one_message_is_returned_as_it_is() -> None:
    body = b'{"model": "a"}'
    read, _ = await read_routed(receiving({"type": "http.request", "body": body}), [], 100)
    assert read is body


async def test_body_in_several_messages_is_joined() -> None:
    receive = receiving(
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"cd", "more_body": False},
    )
    assert await read_routed(receive, [], 4) == (b"abcd", None)


async def test_body_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(RequestTooLarge, match="max_body_mib"):
        await read_routed(receiving(), [(b"content-length", b"101")], 100)


async def test_body_without_a_length_is_refused_once_it_passes_the_limit() -> None:
    receive = receiving(
        {"type": "http.request", "body": b"x" * 60, "more_body": True},
        {"type": "http.request", "body": b"x" * 60, "more_body": True},
    )
    with pytest.raises(RequestTooLarge):
        await read_routed(receive, [], 100)


async def test_disconnect_in_the_middle_of_the_body_raises() -> None:
    receive = receiving(
        {"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}
    )
    with pytest.raises(ClientDisconnected):
        await read_routed(receive, [], 100)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"model": "a"} x', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "JSON object"),
        (b'"text"', "JSON object"),
        (b"{}", "Model name is required"),
        (b'{"model": null}', "Model name is required"),
        (b'{"model": ""}', "non-empty string"),
        (b'{"model": 3}', "non-empty string"),
        (b'{"model": {"a": 1}}', "non-empty string"),
    ],
)
def test_body_without_a_usable_model_says_what_is_wrong(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        model_in(body)


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
        assert model_in(body) == old
    except InvalidRequest:
        return  # an escaped lone surrogate, likewise
    assert json.loads(with_model(body, new)) == {**document, "model": new}
