"""Strict JSON parser for the bodies of the management API.

A body is one JSON object in UTF-8 of bounded size and depth. The parser also refuses values that
would fail later: the values of ``llamactl.core.json_values``, and numbers outside JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import IO, Any, ClassVar

from rest_framework.parsers import BaseParser

from llamactl.core.errors import BodyTooLarge, InvalidRequest, LlamactlError
from llamactl.core.json_values import MAX_DEPTH, check_values

MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_BMP_BYTES = 320 * 1024
"""With a character above U+00FF, which makes a ``str`` of two bytes a character."""
MAX_WIDE_BYTES = 128 * 1024
"""With a character above U+FFFF: four bytes a character, in the text and in its values."""
MAX_VALUES = 10_000
"""Of lists, objects and their members: 2 MiB of ``{"":1},`` would take 60 MB, and the interpreter
for 80 ms in which no other thread runs. The longest document of a client has about a thousand."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A text that is not closed extends to the end: otherwise each quotation mark in it would begin
another search to the end."""
_BMP = re.compile(rb"[\xc4-\xef]|\\u(?!00)")
_WIDE = re.compile(rb"[\xf0-\xf4]|\\u[dD][89aAbB]")


class StrictJSONParser(BaseParser):
    """Parses a body to a dict; no body, and ``null``, are None.

    ``error_class`` is the error for a bad body: the keys' views have a code of their own.
    """

    media_type = "application/json"
    error_class: ClassVar[type[LlamactlError]] = InvalidRequest

    def parse(  # type: ignore[override]  # DRF itself allows any value
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, object] | None:
        """Parse the body. Raises ``error_class`` (400) or BodyTooLarge (413)."""
        raw: bytes = stream.read(MAX_BODY_BYTES + 1)
        if len(raw) > MAX_BODY_BYTES:
            raise BodyTooLarge(f"Invalid request body: it must have at most {MAX_BODY_BYTES} bytes")
        _check_width(raw)
        try:
            return parse_object(raw)
        except ValueError as error:
            raise self.error_class(f"Invalid request body: {error}") from None


def parse_object(raw: bytes) -> dict[str, object] | None:
    """Parse the JSON object in ``raw``; blank text and ``null`` are None. Raises ValueError."""
    _check_number_of_values(raw)
    try:
        text = raw.decode("utf-8")
        if not text.strip():
            return None
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"it is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise ValueError(f"it must not be nested more than {MAX_DEPTH} deep") from None
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"it must be a JSON object, not {_kind(value)}")
    check_values(value)
    return value


def _check_width(raw: bytes) -> None:
    """Raise BodyTooLarge for a text that would take several times its bytes."""
    if len(raw) > MAX_WIDE_BYTES and _WIDE.search(raw):
        limit, character = MAX_WIDE_BYTES, "U+FFFF (such as an emoji)"
    elif len(raw) > MAX_BMP_BYTES and _BMP.search(raw):
        limit, character = MAX_BMP_BYTES, "U+00FF"
    else:
        return
    raise BodyTooLarge(
        f"Invalid request body: it has a character above {character}, and must have at most {limit}"
        " bytes then"
    )


def _check_number_of_values(raw: bytes) -> None:
    """Raise ValueError for a document with too many values, before any of them is made."""
    separators = _separators(raw)
    if separators <= MAX_VALUES:
        return
    # A text (a chat template, a grammar) may have many. Each text is a value itself.
    for number, text in enumerate(_STRING.finditer(raw)):
        separators -= _separators(text[0])
        if separators <= MAX_VALUES:
            return
        if number > MAX_VALUES:
            break
    raise ValueError(f"it must not have more than {MAX_VALUES} values")


def _separators(raw: bytes) -> int:
    return sum(raw.count(separator) for separator in (b",", b":", b"[", b"{"))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _kind(value: object) -> str:
    kinds = {list: "a list", str: "a string", bool: "a boolean"}
    return kinds.get(type(value), "a number")
