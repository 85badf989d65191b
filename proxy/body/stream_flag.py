"""The field ``stream`` of a JSON document: whether a request asks for an event stream."""

from __future__ import annotations

from collections.abc import Generator

import orjson

from llamactl.core.errors import InvalidRequest
from llamactl.core.turns import Turns
from proxy.body.json_model import PARSED_BYTES
from proxy.body.json_scan import Member, MemberScan

_LONGEST_KEY = 6 * len("stream") + 2
"""``stream`` in quotation marks, with all of its letters escaped."""


async def asks_for_stream(body: bytes, turns: Turns) -> bool:
    """Whether the document has ``"stream": true``; the last of several counts, as in most parsers.

    Read only for a request that waits, so that other requests need not pay for it.
    """
    if len(body) > PARSED_BYTES:
        try:
            return await turns.run(_scan(body))
        except InvalidRequest:
            return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and document.get("stream") is True


def _scan(body: bytes) -> Generator[None, None, bool]:
    asked = False

    def visit(member: Member) -> None:
        nonlocal asked
        if member.key_end - member.key > _LONGEST_KEY:
            return
        key = body[member.key : member.key_end]
        if b"stream" in key or b"\\" in key:
            try:
                is_stream = orjson.loads(key) == "stream"
            except orjson.JSONDecodeError:
                return
            if is_stream:
                asked = body[member.start : member.end] == b"true"

    yield from MemberScan(body).run(visit)
    return asked
