"""The field ``model`` of a JSON document: its value, and its places in the body.

A small document is parsed with orjson. A larger document is scanned: a parsed document takes up to
30 times its bytes (``[{"":1},{"":1}…]``), and parsing it blocks the event loop. The scan finds the
members of the outermost object and passes over everything else with regular expressions that don't
backtrack, one slice after the other. It checks as much of the syntax as it needs to find the same
``model`` as every parser; the backend checks the rest.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from itertools import islice
from typing import NamedTuple

import orjson

from llamactl.core.errors import InvalidRequest
from proxy.body.multipart import MAX_MODEL_BYTES
from proxy.turns import Turns, at_once

PARSED_BYTES = 32 * 1024
"""A document up to this size is parsed: about 0.1 ms and 1 MB at most."""
MAX_DEPTH = 1024
"""orjson's own bound."""
MAX_MEMBERS = 10_000
"""Of the outermost object: an API call has about fifty, and each is a step of the scan."""
MAX_PLACES = 10
"""Of the key ``model`` in the outermost object."""
MAX_DEEP_BRACKETS = 200_000
"""Brackets that are nested more than ``_PASSED_LEVELS`` deep in a member, each a step too. Chats,
token lists and JSON schemas of many megabytes have a few thousand."""

_SLICE_BYTES = 32 * 1024
"""The bytes that one regular expression may look at: up to 2 ms for the slowest input."""
_PASSED_LEVELS = 4

_SPACE = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb'[^ \t\r\n,:"{}\[\]]*+')
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = rb'[^"{}\[\]]*+(?:' + _STRING + rb'[^"{}\[\]]*+)*+'


def _nested(levels: int) -> bytes:
    """A pattern for text without brackets, or with balanced brackets up to ``levels`` deep."""
    if not levels:
        return _FLAT
    return _FLAT + rb"(?:[\[{]" + _nested(levels - 1) + rb"[\]}]" + _FLAT + rb")*+"


_PASSED = re.compile(_nested(_PASSED_LEVELS), re.DOTALL)
_MODEL_KEY = re.compile(
    rb'"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"'
)
"""Every spelling of the key ``model``."""
_LONGEST_MODEL_TOKEN = 6 * MAX_MODEL_BYTES + 2
"""A text of that size in its longest spelling, all of it escaped."""

Scan = Generator[None, None, int]


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
        raise _not_json(str(error)) from None
    if not isinstance(document, dict):
        raise _no_object()
    return JsonModel(_checked(document.get("model")), None)


def _places(body: bytes) -> tuple[tuple[int, int], ...]:
    """The places in a document that has passed ``parsed_model``."""
    found = [match.end() for match in islice(_MODEL_KEY.finditer(body), 2)]
    if len(found) != 1:
        return at_once(scan(body)).places or ()
    # The document has the key in its outermost object, so this is the key.
    colon = _end(_SPACE.match(body, found[0]))
    start = _end(_SPACE.match(body, colon + 1))
    return ((start, _end(_REST_OF_STRING.match(body, start + 1)) + 1),)


def scan(body: bytes) -> Generator[None, None, JsonModel]:
    """``json_model`` in steps."""
    return (yield from _Scan(body).document())


class _Scan:
    """One pass over a document. Its methods go on from a position, and return where they end."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._deep_brackets = 0
        self._backslash = -1
        """The first backslash behind a place that was looked at; at the end there is none."""

    def document(self) -> Generator[None, None, JsonModel]:
        """Read the outermost object."""
        body = self._body
        at = yield from self._run(_SPACE, 0)
        if body[at : at + 1] != b"{":
            raise _no_object() if body[at : at + 1] in (b"[", b'"') else _broken(at)
        models: list[tuple[int, int]] = []
        at = yield from self._run(_SPACE, at + 1)
        if body[at : at + 1] == b"}":
            raise _no_model()
        for _ in range(MAX_MEMBERS):
            is_model = _MODEL_KEY.match(body, at) is not None
            at = yield from self._key(at)
            start, at = at, (yield from self._value(at))
            if is_model:
                models.append((start, at))
                if len(models) > MAX_PLACES:
                    raise InvalidRequest("Invalid request body: model is given too often")
            at = yield from self._run(_SPACE, at)
            if body[at : at + 1] == b"}":
                yield from self._end(at + 1)
                return self._model(models)
            if body[at : at + 1] != b",":
                raise _broken(at)
            at = yield from self._run(_SPACE, at + 1)
            yield
        raise InvalidRequest(
            f"Invalid request body: its object has more than {MAX_MEMBERS} members"
        )

    def _model(self, places: list[tuple[int, int]]) -> JsonModel:
        if not places:
            raise _no_model()
        values = []
        for start, end in places:
            token = self._body[start : min(end, start + _LONGEST_MODEL_TOKEN + 1)]
            if len(token) > _LONGEST_MODEL_TOKEN:
                raise _bad_model()
            try:
                value = orjson.loads(token)
            except orjson.JSONDecodeError as error:
                raise _not_json(str(error)) from None
            values.append(_checked(value))
        # As orjson and most parsers: the last counts. For the others all places are replaced.
        return JsonModel(values[-1], tuple(places))

    def _end(self, at: int) -> Generator[None, None, None]:
        at = yield from self._run(_SPACE, at)
        if at != len(self._body):
            raise _broken(at)

    def _key(self, at: int) -> Scan:
        """Pass a key, its colon, and the blanks around it."""
        if self._body[at : at + 1] != b'"':
            raise _broken(at)
        at = yield from self._string(at)
        at = yield from self._run(_SPACE, at)
        if self._body[at : at + 1] != b":":
            raise _broken(at)
        return (yield from self._run(_SPACE, at + 1))

    def _value(self, at: int) -> Scan:
        first = self._body[at : at + 1]
        if first == b'"':
            return (yield from self._string(at))
        if first in (b"{", b"["):
            return (yield from self._list_or_object(at))
        end = yield from self._run(_SCALAR, at)
        if end == at:
            raise _broken(at)
        return end

    def _list_or_object(self, at: int) -> Scan:
        """Pass a list or an object with everything in it."""
        body, depth = self._body, 1
        at += 1
        while True:
            at = _end(_PASSED.match(body, at, at + _SLICE_BYTES))
            yield
            byte = body[at : at + 1]
            if byte == b'"':
                # It does not end within the slice.
                at = yield from self._string(at)
            elif byte in (b"{", b"["):
                depth += 1
                at += 1
                self._deep_brackets += 1
                if depth > MAX_DEPTH or self._deep_brackets > MAX_DEEP_BRACKETS:
                    raise InvalidRequest("Invalid request body: it is nested too deeply")
            elif byte in (b"}", b"]"):
                depth -= 1
                at += 1
                if not depth:
                    return at
            elif not byte:
                raise _breaks_off()

    def _string(self, at: int) -> Scan:
        """Pass a string, from its first quotation mark."""
        end = self._end_of_plain_string(at + 1)
        if end:
            return end
        at = yield from self._run(_REST_OF_STRING, at + 1)
        if self._body[at : at + 1] != b'"':
            raise _breaks_off()
        return at + 1

    def _end_of_plain_string(self, at: int) -> int:
        """The end of a string without backslashes, or 0.

        ``find`` passes an image in base64 thirty times as fast as a regular expression.
        """
        body = self._body
        if self._backslash < at:
            found = body.find(b"\\", at)
            self._backslash = len(body) if found < 0 else found
        return body.find(b'"', at, self._backslash) + 1

    def _run(self, pattern: re.Pattern[bytes], at: int) -> Scan:
        """Pass everything that the pattern matches, slice by slice."""
        while True:
            end = _end(pattern.match(self._body, at, at + _SLICE_BYTES))
            # A slice may end within an escape, which then begins the next slice.
            if end < at + _SLICE_BYTES - 1 or end == len(self._body):
                return end
            at = end
            yield


def _end(match: re.Match[bytes] | None) -> int:
    assert match is not None  # noqa: S101 - each of the patterns matches an empty text
    return match.end()


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


def _no_object() -> InvalidRequest:
    return InvalidRequest("Invalid request body: expected a JSON object")


def _not_json(why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid request body: it is not JSON ({why})")


def _broken(at: int) -> InvalidRequest:
    return _not_json(f"unexpected character at byte {at}")


def _breaks_off() -> InvalidRequest:
    return _not_json("it breaks off")
