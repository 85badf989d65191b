from __future__ import annotations

import pytest

from llamactl.core.turns import Turns
from proxy.body.json_model import PARSED_BYTES
from proxy.body.stream_flag import asks_for_stream

LONG = b'"prompt":"' + b"x" * PARSED_BYTES + b'"'


@pytest.mark.parametrize(
    ("members", "asks"),
    [
        (b'"stream":true', True),
        (b'"stream" : \n true', True),
        (b'"str\\u0065am":true', True),
        (b'"stream":false', False),
        (b'"stream":"true"', False),
        (b'"stream":1', False),
        (b'"stream":null', False),
        (b'"stream":[true]', False),
        (b'"stream":true,"stream":false', False),
        (b'"stream":false,"stream":true', True),
        (b'"tools":[{"stream":true}]', False),
        (b'"text":"\\"stream\\":true"', False),
        (b'"stream_options":true', False),
        (b'"Stream":true', False),
    ],
)
async def test_only_the_outermost_member_with_the_value_true_asks_for_a_stream(
    members: bytes, asks: bool
) -> None:
    turns = Turns()
    assert await asks_for_stream(b"{" + members + b"}", turns) is asks
    # It should be the same in a document that is too large to be parsed, before and behind.
    assert await asks_for_stream(b"{" + members + b"," + LONG + b"}", turns) is asks
    assert await asks_for_stream(b"{" + LONG + b"," + members + b"}", turns) is asks


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"no JSON", b'{"stream":true', b'["stream":true,' + LONG + b"]"],
)
async def test_what_is_no_object_asks_for_nothing(body: bytes) -> None:
    assert await asks_for_stream(body, Turns()) is False
    assert await asks_for_stream(b" " * PARSED_BYTES + body, Turns()) is False
