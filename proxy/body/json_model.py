"""The field ``model`` of a JSON document: its value, and its places in the body."""

from __future__ import annotations

import re
from collections.abc import Generator
from itertools import islice
from typing import NamedTuple

import orjson

from llamactl.core.errors import InvalidRequest
from llamactl.core.turns import Turns, at_once
from proxy.body.json_scan import (
    REST_OF_STRING,
    SPACE,
    Member,
    MemberScan,
    end_of,
    no_object,
    not_json,
)
from proxy.body.multipart import MAX_MODEL_BYTES

PARSED_BYTES = 32 * 1024
"""A document up to this size is parsed: about 0.1 ms and 1 MB at most."""
MAX_PLACES = 10
"""Of the key ``model`` in the outermost object."""

_MODEL_KEY = re.compile(
    rb'"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"'
)
"""Every spelling of the key ``model``."""
_LONGEST_MODEL_TOKEN = 6 * MAX_MODEL_BYTES + 2
"""A text of that size in its longest spelling, all of it escaped."""


class JsonModel(NamedTuple):
    """The value of the member ``model``, and its places in the body."""

    model: str
    places: tuple[tuple[int, int], ...] | None
    """Start and end of each value, several for a repeated key; ``None``: not looked for yet."""

    def replaced(self, body: bytes, model: str) -> bytes:
        """The body with another model."""
        return b"".join(self.parts_with(body, model))

    def parts_with(self, body: bytes, model: str) -> list[bytes | memoryview]:
        """The parts of the body with another model at every place, and every other byte untouched.

        Decoding and encoding the body would turn integers above 2^53 into floats for some readers,
        and lose the client's spelling of numbers.
        """
        places = _places(body) if self.places is None else self.places
        encoded, view = orjson.dumps(model), memoryview(body)
        parts: list[bytes | memoryview] = []
        copied = 0
        for start, end in places:
            parts += (view[copied:start], encoded)
            copied = end
        return [*parts, view[copied:]]


async def json_model(body: bytes, turns: Turns) -> JsonModel:
    """The ``model`` of a JSON request. Raises InvalidRequest (400) for a body without one."""
    if len(body) > PARSED_BYTES:
        return await turns.run(scan(body))
    return parsed_model(body)


def parsed_model(body: bytes) -> JsonModel:
    """``json_model`` of a small document."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise not_json(str(error)) from None
    if not isinstance(document, dict):
        raise no_object()
    return JsonModel(_checked(document.get("model")), None)


def _places(body: bytes) -> tuple[tuple[int, int], ...]:
    """The places in a document that has passed ``parsed_model``."""
    found = [match.end() for match in islice(_MODEL_KEY.finditer(body), 2)]
    if len(found) != 1:
        return at_once(scan(body)).places or ()
    # The document has the key in its outermost object, so this is the key.
    colon = end_of(SPACE.match(body, found[0]))
    start = end_of(SPACE.match(body, colon + 1))
    return ((start, end_of(REST_OF_STRING.match(body, start + 1)) + 1),)


def scan(body: bytes) -> Generator[None, None, JsonModel]:
    """``json_model`` in steps."""
    places: list[tuple[int, int]] = []

    def visit(member: Member) -> None:
        if _MODEL_KEY.match(body, member.key) is not None:
            places.append((member.start, member.end))
            if len(places) > MAX_PLACES:
                raise InvalidRequest("Invalid request body: model is given too often")

    yield from MemberScan(body).run(visit)
    return _model_at(body, places)


def _model_at(body: bytes, places: list[tuple[int, int]]) -> JsonModel:
    if not places:
        raise _no_model()
    values = []
    for start, end in places:
        token = body[start : min(end, start + _LONGEST_MODEL_TOKEN + 1)]
        if len(token) > _LONGEST_MODEL_TOKEN:
            raise _bad_model()
        try:
            value = orjson.loads(token)
        except orjson.JSONDecodeError as error:
            raise not_json(str(error)) from None
        values.append(_checked(value))
    # As orjson and most parsers: the last counts. For the others all places are replaced.
    return JsonModel(values[-1], tuple(places))


def _checked(model: object) -> str:
    if model is None:
        raise _no_model()
    if not isinstance(model, str) or not model:
        raise InvalidRequest("Invalid model: it must be a non-empty string")
    # A character has four bytes at most.
    if 4 * len(model) > MAX_MODEL_BYTES < len(model.encode()):
        raise _bad_model()
    return model


def _bad_model() -> InvalidRequest:
    return InvalidRequest(
        f"Invalid model: it must be a non-empty string of at most {MAX_MODEL_BYTES} bytes in UTF-8"
    )


def _no_model() -> InvalidRequest:
    return InvalidRequest(
        'Model name is required: put "model" into the request; GET /v1/models lists the names'
    )
