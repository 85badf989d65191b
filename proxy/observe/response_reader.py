"""Reading of a response's token counts while it is relayed.

The pieces go to the client untouched. Kept are the head and the tail of the body alone, and they
are parsed once, at the end: for each piece of a stream the reader counts the ends of events and
copies the piece into a tail of a few kilobytes.
"""

from __future__ import annotations

import json
import re

import orjson

from proxy.observe.tokens import Figures, Tokens, tokens_from, tokens_in

PARSED_BYTES = 16 * 1024
"""A JSON body up to this size is parsed whole: 20 µs at most."""
HEAD_BYTES = 4 * 1024
TAIL_BYTES = 8 * 1024
"""The last events of a stream, or the end of a long body."""
LAST_EVENTS = 6
"""Events at the end of a stream that are looked at; the figures are in the last three."""
MAX_FIGURES_BYTES = 2 * 1024
"""Of one ``usage`` or ``timings``; the longest has some 500."""
MAX_FAILURES = 8
"""Figures that can't be read before the search ends. One may be cut off at an end of a part; each
of 900 in a hostile body would take 0.1 ms."""

_EVENT_END = b"\n\n"
_CRLF_EVENT_END = b"\r\n\r\n"
# In valid JSON a text in quotes with a colon behind it is a key: within a string the quotes would
# have backslashes.
_FIGURES = re.compile(rb'(?<!\\)"(usage|timings)"[ \t\r\n]*:[ \t\r\n]*(?=\{)')
_DATA_LINE = re.compile(rb"^data:[ ]?(\{.*)$", re.MULTILINE)
_DECODER = json.JSONDecoder()


def tokens_of_body(body: bytes) -> Tokens | None:
    """The counts in a JSON document; None without any."""
    if len(body) > PARSED_BYTES:
        return _located(body[:HEAD_BYTES], _around_figures(body), body[-TAIL_BYTES:])
    try:
        return tokens_in(orjson.loads(body))
    except orjson.JSONDecodeError:
        return None


class ResponseReader:
    """The head and the tail of a body under way, and the number of its events."""

    __slots__ = ("_end", "_head", "_inner", "_tail", "events", "is_stream")

    def __init__(self, first: bytes) -> None:
        """``first``: the first piece of the body."""
        self.is_stream = not first[:64].lstrip().startswith((b"{", b"["))
        head = first[:HEAD_BYTES]
        self._head: bytes | None = head if len(first) > HEAD_BYTES else None
        """Kept apart once the tail does not reach back to it."""
        self._end = _CRLF_EVENT_END if _CRLF_EVENT_END in head else _EVENT_END
        self._tail = bytearray(first[-TAIL_BYTES:])
        self._inner = b"" if self.is_stream else _around_figures(first)
        """The figures of a JSON document that has something long behind them, such as llama.cpp's
        ``completion_probabilities``."""
        self.events = first.count(self._end) if self.is_stream else 0

    def feed(self, piece: bytes) -> None:
        """Note the next piece; the cost of each is one ``count`` and one copy."""
        tail = self._tail
        if self.is_stream:
            self.events += piece.count(self._end)
        elif not self._inner:
            # The figures may begin in the piece before.
            self._inner = _around_figures(tail[-MAX_FIGURES_BYTES:] + piece)
        elif len(self._inner) < MAX_FIGURES_BYTES:
            self._inner += piece[:MAX_FIGURES_BYTES]
        if len(piece) > TAIL_BYTES:
            piece = piece[-TAIL_BYTES:]
        tail += piece
        if len(tail) > 2 * TAIL_BYTES:
            if self._head is None:
                self._head = bytes(tail[:HEAD_BYTES])
            del tail[:-TAIL_BYTES]

    def tokens(self) -> Tokens | None:
        """The counts in the body so far; None without any."""
        tail = bytes(self._tail)
        if not self.is_stream:
            if self._head is None:
                return tokens_of_body(tail.lstrip())
            return _located(self._head, self._inner, tail)
        found = self._in_last_events(tail)
        if found is None or not found.prompt:
            begin = self._in_first_event(tail)
            if begin is not None:
                # Anthropic's message_start has the prompt's counts, message_delta the completion's.
                return begin if found is None else _both(begin, found)
        return found

    def _in_last_events(self, tail: bytes) -> Tokens | None:
        for event in reversed(tail.rsplit(self._end, LAST_EVENTS)):
            found = _in_event(event)
            if found is not None:
                return found
        # The last event may be larger than the tail: the Responses API repeats the whole text.
        return _located(tail)

    def _in_first_event(self, tail: bytes) -> Tokens | None:
        head = tail[:HEAD_BYTES] if self._head is None else self._head
        return _in_event(head.partition(self._end)[0])


def _around_figures(text: bytes | bytearray) -> bytes:
    """The last ``usage`` or ``timings`` of a text, with what is behind it; ``b""`` without any."""
    at = max(text.rfind(b'"usage"'), text.rfind(b'"timings"'))
    return bytes(text[at : at + MAX_FIGURES_BYTES]) if at >= 0 else b""


def _in_event(event: bytes) -> Tokens | None:
    """The counts in one event of a stream; None without any."""
    if b'"usage"' not in event and b'"timings"' not in event:
        return None
    match = _DATA_LINE.search(event)
    if match is None:
        return None
    try:
        return tokens_in(orjson.loads(match[1]))
    except orjson.JSONDecodeError:
        return None


def _both(begin: Tokens, end: Tokens) -> Tokens:
    """The counts of a stream whose first event has those of the prompt."""
    return end._replace(prompt=begin.prompt, cached=begin.cached)


def _located(*parts: bytes) -> Tokens | None:
    """The counts in parts of a JSON document; the last ``usage`` and ``timings`` count."""
    found: dict[bytes, Figures] = {}
    failures = 0
    for part in reversed(parts):
        for match in reversed(list(_FIGURES.finditer(part))):
            if match[1] in found:
                continue
            text = part[match.end() : match.end() + MAX_FIGURES_BYTES].decode("latin-1")
            try:
                found[match[1]] = _DECODER.raw_decode(text)[0]
            except (ValueError, RecursionError):  # cut off, no JSON, or a hostile backend's
                failures += 1
                if failures > MAX_FAILURES:
                    return tokens_from(found.get(b"usage"), found.get(b"timings"))
    return tokens_from(found.get(b"usage"), found.get(b"timings"))
