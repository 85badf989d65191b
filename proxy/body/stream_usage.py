"""The request for the usage event of a stream, for backends that count only if they are asked."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import orjson

from llamactl.core.errors import InvalidRequest
from llamactl.core.turns import Turns, at_once
from proxy.body.json_model import PARSED_BYTES
from proxy.body.json_scan import Member, MemberScan
from proxy.body.request_defaults import RequestDefaults, splice

PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Operations with ``stream_options``; the streams of the others have their usage anyway."""

_OPTIONS = "stream_options"
_READ = ("stream", _OPTIONS)
_LONGEST_KEY = 6 * len(_OPTIONS) + 2
"""``stream_options`` in quotation marks, with all of its letters escaped."""
_LONGEST_VALUE = 4096


async def with_usage(body: bytes, turns: Turns) -> bytes | None:
    """The body with ``stream_options.include_usage``.

    None for a body that needs no change: it asks for no stream, or for the usage itself, or the
    backend will refuse it.
    """
    try:
        fields = await _fields(body, turns)
        options = fields.get(_OPTIONS)
        if fields.get("stream") is not True or not isinstance(options, dict | None):
            return None
        options = options or {}
        if options.get("include_usage", False) not in (False, None):
            return None
        member = orjson.dumps({_OPTIONS: {**options, "include_usage": True}})[1:-1]
        steps = splice(body, RequestDefaults(frozenset({_OPTIONS}), {_OPTIONS: member}))
        return at_once(steps) if len(body) <= PARSED_BYTES else await turns.run(steps)
    except (InvalidRequest, orjson.JSONDecodeError):
        return None


async def _fields(body: bytes, turns: Turns) -> dict[str, Any]:
    """The two fields of the outermost object; of a repeated one the last, as in most parsers."""
    if len(body) <= PARSED_BYTES:
        document = orjson.loads(body)
        return document if isinstance(document, dict) else {}
    return await turns.run(_scan(body))


def _scan(body: bytes) -> Generator[None, None, dict[str, Any]]:
    found: dict[str, Any] = {}

    def visit(member: Member) -> None:
        if member.key_end - member.key > _LONGEST_KEY:
            return
        key = body[member.key : member.key_end]
        if b"stream" not in key and b"\\" not in key:
            return
        name = orjson.loads(key)
        if name in _READ:
            value = body[member.start : min(member.end, member.start + _LONGEST_VALUE)]
            found[name] = orjson.loads(value)

    yield from MemberScan(body).run(visit)
    return found
