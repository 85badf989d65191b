from __future__ import annotations

import contextlib
import io
import json
import time

import pytest

from llamactl.api.json_parser import (
    MAX_BMP_BYTES,
    MAX_BODY_BYTES,
    MAX_VALUES,
    MAX_WIDE_BYTES,
    StrictJSONParser,
    parse_object,
)
from llamactl.core.errors import BodyTooLarge, InvalidRequest
from llamactl.core.json_values import MAX_DEPTH
from tests.support.loop_stall import MAX_STALL_SECONDS, measured_memory


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def test_an_object_is_parsed_unchanged() -> None:
    raw = json.dumps({"a": [1, 2.5, None, True, "ü😀"], "b": {"c": 2**70}}).encode()
    # It should keep integers of any size exact; floats would round them.
    assert parse_object(raw) == {"a": [1, 2.5, None, True, "ü😀"], "b": {"c": 2**70}}


def test_the_last_of_equal_names_counts() -> None:
    assert parse_object(b'{"a":1,"a":2}') == {"a": 2}


@pytest.mark.parametrize("raw", [b"", b" \r\n", b"null"])
def test_no_body_differs_from_an_empty_object(raw: bytes) -> None:
    assert parse_object(raw) is None
    assert parse_object(b"{}") == {}


def test_depth_is_bounded() -> None:
    assert parse_object(nested(MAX_DEPTH)) is not None
    with pytest.raises(ValueError, match=f"more than {MAX_DEPTH} deep"):
        parse_object(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "it is not JSON"),
        (b"{'a':1}", "it is not JSON"),
        (b'{"a":1} x', "line 1 column 9"),
        (b"[]", "must be a JSON object, not a list"),
        (b'"{}"', "not a string"),
        (b"true", "not a boolean"),
        (b"0", "not a number"),
        (b'{"a":NaN}', "NaN is no JSON number"),
        (b'{"a":-Infinity}', "-Infinity is no JSON number"),
        (b'{"a":1e999}', "too large a number"),
        (b'{"a":' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b"[" * 100_000, "more than"),
        (b'{"a":' * 100_000, "more than"),
        (b'{"a":[' + b'{"":1},' * 5000 + b"1]}", "more than 10000 values"),
        (b'{"a":[' + b'"",' * 50_000 + b"1]}", "more than 10000 values"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        (b'\xef\xbb\xbf{"a":1}', "BOM"),
        (b'{"a":"x\\u0000y"}', "a must not contain a NUL"),
        (b'{"a":{"b\\u0000":1}}', "a name in a must not contain a NUL"),
        (b'{"a":[{"b":"\\ud83d"}]}', "a.b must not contain half of a surrogate pair"),
        (b'{"\\udc00":1}', "a name in the object must not contain half"),
    ],
)
def test_a_bad_body_is_refused_in_words(raw: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_object(raw)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse_object(b'{"a":"\\ud83d\\ude00"}') == {"a": "😀"}


def test_the_parser_limits_the_size_of_a_body() -> None:
    stream = io.BytesIO(b" " * (MAX_BODY_BYTES * 3))
    with pytest.raises(BodyTooLarge):
        StrictJSONParser().parse(stream)
    assert stream.tell() == MAX_BODY_BYTES + 1


def test_the_parser_refuses_with_its_code() -> None:
    with pytest.raises(InvalidRequest, match="Invalid request body: it is not JSON"):
        StrictJSONParser().parse(io.BytesIO(b"{"))


def test_a_text_may_have_any_number_of_separators() -> None:
    text = "{{ a[0], b:1 }} \\" * 50_000
    assert parse_object(json.dumps({"a": text, "b": "x"}).encode()) == {"a": text, "b": "x"}


FILLINGS = [
    "[",
    '{"a":',
    '{"":1},',
    '"",',
    '"\\"",',
    "1,",
    "9",
    "1.1",
    "0.",
    "-",
    "\\",
    "a",
    " ",
    "{}",
]


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("begin", ['{"a":', '{"a":[', '{"a":"', '{"', "", '{"a":1.', '{"a":1e'])
def test_no_body_keeps_other_threads_from_running(begin: str, filling: str) -> None:
    # It should hold the interpreter no longer than a bounded body of plain text does.
    raw = (begin + filling * (MAX_BODY_BYTES // len(filling))).encode()[:MAX_BODY_BYTES]
    before = time.thread_time()
    with contextlib.suppress(ValueError):
        parse_object(raw)
    assert time.thread_time() - before < MAX_STALL_SECONDS


def test_a_text_that_is_not_closed_is_read_once() -> None:
    # Each quotation mark in it should begin no search to the end: 2 MiB took hours.
    raw = b"," * (MAX_VALUES + 1) + b'"' + b'\\"' * (MAX_BODY_BYTES // 2 - MAX_VALUES)
    before = time.thread_time()
    with pytest.raises(ValueError, match="values"):
        parse_object(raw)
    assert time.thread_time() - before < MAX_STALL_SECONDS


@pytest.mark.parametrize(
    ("character", "limit"),
    [
        ("😀", MAX_WIDE_BYTES),
        ("\\ud83d\\ude00", MAX_WIDE_BYTES),
        ("中", MAX_BMP_BYTES),
        ("\\u4e2d", MAX_BMP_BYTES),
        ("ü", MAX_BODY_BYTES),
        ("\\u00fc", MAX_BODY_BYTES),
    ],
)
def test_a_text_that_takes_several_times_its_bytes_has_a_lower_limit(
    character: str, limit: int
) -> None:
    def parse(size: int) -> object:
        end = f'{character}"}}'.encode()
        raw = b'{"a":"' + b"a" * (size - 6 - len(end)) + end
        assert len(raw) == size
        return StrictJSONParser().parse(io.BytesIO(raw))

    parse(limit)
    with pytest.raises(BodyTooLarge, match=str(limit)):
        parse(limit + 1)


@pytest.mark.parametrize(
    "element", [b'"",', b'"ab",', b'{"":1},', b"[],", b'"a,b:[{",', b'"' + b"," * 50 + b'",']
)
def test_counting_values_takes_no_memory(element: bytes) -> None:
    raw = b'{"a":[' + element * (MAX_BODY_BYTES // len(element) - 10) + b"1]}"
    with measured_memory() as peak, pytest.raises(ValueError, match="values"):
        parse_object(raw)
    assert peak.grown_bytes < 2**20
