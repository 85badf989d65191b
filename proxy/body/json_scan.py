"""Scan of a JSON document for the members of its outermost object.

A small document is parsed with orjson. A large document is scanned: a parsed document takes up to
30 times its bytes (``[{"":1},{"":1}…]``), and parsing it blocks the event loop. The scan finds the
members of the outermost object and passes over everything else with regular expressions that don't
backtrack, one slice after the other. It checks as much of the syntax as it needs to find the same
members as every parser; the backend checks the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import NamedTuple

from llamactl.core.errors import InvalidRequest

MAX_DEPTH = 1024
"""orjson's own bound."""
MAX_MEMBERS = 10_000
"""Of the outermost object: an API call has about fifty, and each is a step of the scan."""
MAX_DEEP_BRACKETS = 200_000
"""Brackets that are nested more than ``_PASSED_LEVELS`` deep in a member, each a step too. Chats,
token lists and JSON schemas of many megabytes have a few thousand."""

_SLICE_BYTES = 32 * 1024
"""The bytes that one regular expression may look at: up to 2 ms for the slowest input."""
_PASSED_LEVELS = 4

SPACE = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb'[^ \t\r\n,:"{}\[\]]*+')
REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = rb'[^"{}\[\]]*+(?:' + _STRING + rb'[^"{}\[\]]*+)*+'


def _nested(levels: int) -> bytes:
    """A pattern for text without brackets, or with balanced brackets up to ``levels`` deep."""
    if not levels:
        return _FLAT
    return _FLAT + rb"(?:[\[{]" + _nested(levels - 1) + rb"[\]}]" + _FLAT + rb")*+"


_PASSED = re.compile(_nested(_PASSED_LEVELS), re.DOTALL)

Scan = Generator[None, None, int]


class Member(NamedTuple):
    """The places of one member of the outermost object."""

    comma: int
    """That of the comma before it; -1 for the first member."""
    key: int
    key_end: int
    start: int
    """The start of the value."""
    end: int


class MemberScan:
    """One pass over a document. Its methods go on from a position, and return where they end."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._deep_brackets = 0
        self._backslash = -1
        """The first backslash behind a place that was looked at; at the end there is none."""

    def run(self, visit: Callable[[Member], None]) -> Generator[None, None, int]:
        """Call ``visit`` with each member; returns the place behind the opening brace.

        Raises InvalidRequest (400) for a document that is no object.
        """
        body, comma = self._body, -1
        at = yield from self._run(SPACE, 0)
        if body[at : at + 1] != b"{":
            raise no_object() if body[at : at + 1] in (b"[", b'"') else _broken(at)
        inside = at + 1
        at = yield from self._run(SPACE, inside)
        if body[at : at + 1] == b"}":
            yield from self._end(at + 1)
            return inside
        for _ in range(MAX_MEMBERS):
            key = at
            key_end = yield from self._key(at)
            start = yield from self._colon(key_end)
            at = yield from self._value(start)
            visit(Member(comma, key, key_end, start, at))
            comma = at = yield from self._run(SPACE, at)
            if body[at : at + 1] == b"}":
                yield from self._end(at + 1)
                return inside
            if body[at : at + 1] != b",":
                raise _broken(at)
            at = yield from self._run(SPACE, at + 1)
            yield
        raise InvalidRequest(
            f"Invalid request body: its object has more than {MAX_MEMBERS} members"
        )

    def _end(self, at: int) -> Generator[None, None, None]:
        at = yield from self._run(SPACE, at)
        if at != len(self._body):
            raise _broken(at)

    def _key(self, at: int) -> Scan:
        if self._body[at : at + 1] != b'"':
            raise _broken(at)
        return (yield from self._string(at))

    def _colon(self, at: int) -> Scan:
        """Pass the colon behind a key, and the blanks around the colon."""
        at = yield from self._run(SPACE, at)
        if self._body[at : at + 1] != b":":
            raise _broken(at)
        return (yield from self._run(SPACE, at + 1))

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
            at = end_of(_PASSED.match(body, at, at + _SLICE_BYTES))
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
        at = yield from self._run(REST_OF_STRING, at + 1)
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
            end = end_of(pattern.match(self._body, at, at + _SLICE_BYTES))
            # A slice may end within an escape, which then begins the next slice.
            if end < at + _SLICE_BYTES - 1 or end == len(self._body):
                return end
            at = end
            yield


def end_of(match: re.Match[bytes] | None) -> int:
    """The end of a match of a pattern that matches an empty text too."""
    assert match is not None  # noqa: S101 - see above
    return match.end()


def no_object() -> InvalidRequest:
    return InvalidRequest("Invalid request body: expected a JSON object")


def not_json(why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid request body: it is not JSON ({why})")


def _broken(at: int) -> InvalidRequest:
    return not_json(f"unexpected character at byte {at}")


def _breaks_off() -> InvalidRequest:
    return not_json("it breaks off")
