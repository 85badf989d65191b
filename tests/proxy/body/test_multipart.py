from __future__ import annotations

import asyncio
import contextlib
import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamactl.core.errors import InvalidRequest
from proxy.body.multipart import MAX_PARTS, FormReader, boundary_in, model_field
from tests.support.loop_stall import MAX_STALL_SECONDS, measured_stall

MODEL = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'


TOKENS = [
    b"--B",
    b"\r\n",
    b"\r\n\r\n",
    b"--",
    b"\r",
    b"\n",
    b"x",
    MODEL,
    FILE,
    b"demo",
    b"\r\n--B\r\n" + MODEL + b"\r\n\r\n",
    b"\r\n--B--",
]


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"B", end: bytes = b"--\r\n") -> bytes:
    lines = [b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, value) for head, value in parts]
    return b"".join(lines) + b"--" + boundary + end


@pytest.mark.parametrize(
    "body",
    [
        form((MODEL, b"demo")),
        form((FILE, b"\x00\xff--B\r\n--A\r\n"), (MODEL, b"demo")),
        form((MODEL, b"demo"), (FILE, b'name="model"\r\n\r\nother')),
        form((MODEL + b"\r\nContent-Type: text/plain; charset=utf-8", b"demo")),
        form((b"content-disposition: FORM-DATA; NAME=model", b"demo")),
        form((b'Content-Disposition: form-data;\r\n name="model"', b"demo")),
        # A file called model, or a name that only looks so, is no field model.
        form((FILE.replace(b'"file"', b'"model"'), b"other"), (MODEL, b"demo")),
        form((b'Content-Disposition: form-data; name="x; name=model"', b"y"), (MODEL, b"demo")),
        b"preamble\r\n" + form((MODEL, b"demo")),
        form((MODEL, b"demo"), end=b"--") + b"\r\nepilogue",
    ],
)
def test_model_is_found_wherever_it_stands_and_only_it_is_replaced(body: bytes) -> None:
    field = model_field(body, b"B")
    assert field.model == "demo"
    assert field.replaced(body, "org/Modèle") == body.replace(b"demo", "org/Modèle".encode())


FORMS = [
    form((FILE, b"\r\n--A\r\n--B-\r\n--"), (MODEL, b"demo"), (FILE, b"")),
    form((MODEL, b"demo"), (FILE, b"x"), (MODEL, b"other")),
    form((MODEL, b"demo"), (b"X-A: b", b"x")),
    form((FILE, b"x")),
    form((MODEL, b"")),
    b"preamble\r\n" + form((MODEL, b"demo"), end=b"--") + b"\r\n--B\r\nepilogue",
    form((MODEL, b"demo")).replace(b"B", b"BB"),
    b"--B\r\n" + MODEL + b"\r\n\r\n--B--\r\n",
    b"--B--",
    b"",
]


def understood(pieces: list[bytes]) -> str:
    """The reader's result for a form in these pieces: its field, or the refusal."""
    reader = FormReader(b"B")
    try:
        for piece in pieces:
            reader.feed(piece)
        return repr(reader.end())
    except InvalidRequest as error:
        return str(error)


@pytest.mark.parametrize("body", FORMS)
def test_form_means_the_same_however_it_is_cut(body: bytes) -> None:
    whole = understood([body])
    for size in (1, 2, 3, 5, 7, 11, 50):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert understood(pieces) == whole
    for cut in range(len(body)):
        assert understood([body[:cut], b"", body[cut:]]) == whole


@given(body=st.lists(st.sampled_from(TOKENS)).map(b"".join), cuts=st.lists(st.integers(0, 200)))
def test_no_cut_makes_another_form_of_it(body: bytes, cuts: list[int]) -> None:
    ends = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    pieces = [body[start:end] for start, end in itertools.pairwise(ends)]
    assert understood(pieces) == understood([body])


def test_field_is_known_before_the_rest_has_come() -> None:
    reader = FormReader(b"B")
    reader.feed(form((MODEL, b"demo"), (FILE, b"x"), end=b"").removesuffix(b"--B"))
    assert reader.field is not None
    assert reader.field.model == "demo"
    with pytest.raises(InvalidRequest, match="twice"):
        reader.feed(form((FILE, b"y"), (MODEL, b"other")))


def test_reader_holds_little_of_a_large_file() -> None:
    reader = FormReader(b"B")
    reader.feed(form((FILE, b""), end=b"\r\n" + FILE + b"\r\n\r\n"))
    tracemalloc.start()
    try:
        for _ in range(64):
            reader.feed(b"\r\n--" * 2**14)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2**14


def test_model_after_a_file_of_thirty_megabytes_is_found() -> None:
    # Its content looks like the beginning of a boundary again and again.
    body = form((FILE, b"\r\n--" * (6 * 2**20)), (MODEL, b"demo"))
    assert body[slice(*model_field(body, b"B")[1:])] == b"demo"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (form((FILE, b"x")), "Model name is required"),
        (form((MODEL, b"")), "Invalid model"),
        (form((MODEL, b"\xff")), "Invalid model"),
        (form((MODEL, b"x" * 1001)), "Invalid model"),
        (form((MODEL, b"demo"), (MODEL, b"other")), "twice"),
        (form((MODEL, b"demo"), (MODEL, b"demo")), "twice"),
        (form((MODEL + b'; name="x"', b"demo")), "one name"),
        (form((b"Content-Disposition: form-data; name*=utf-8''model", b"demo")), "one name"),
        (form((b"Content-Disposition: form-data", b"demo")), "one name"),
        (form((b"X-A: b", b"demo")), "Content-Disposition"),
        (form((MODEL + b"\r\n" + FILE, b"demo")), "Content-Disposition"),
        (form((MODEL + b"\r\nX: " + b"x" * 9000, b"demo")), "headers of a part"),
        (form((MODEL + b"\r\nX: " + b"x" * 1022, b"demo")), "header of a part"),
        (form((MODEL + b";" * 1000, b"demo")), "header of a part"),
        (form((MODEL + b"\r\nX: a\nContent-Type: b", b"demo")), "header of a part"),
        (form((MODEL + b"\r\nX : a", b"demo")), "header of a part"),
        (form((MODEL + b"\r\nno colon", b"demo")), "header of a part"),
        (form((MODEL + b'; x="a', b"demo")), "Content-Disposition"),
        (form((MODEL + b'; "x"=a', b"demo")), "Content-Disposition"),
        (form((MODEL.replace(b"model", rb"mod\el"), b"demo")), "one name"),
        (form(*[(FILE + b"\r\nX: " + b"x" * 900, b"")] * 300), "headers of its parts"),
        (form((MODEL, b"demo"), end=b""), "breaks off"),
        (form((MODEL, b"demo"), end=b"x--"), "follows a boundary"),
        (form((MODEL, b"demo")).replace(b"--B\r\n", b"--B \r\n", 1), "follows a boundary"),
        (form((MODEL, b"demo"))[:-8], "breaks off"),
        (form((MODEL, b"demo")).replace(b"\r\n", b"\n"), "follows a boundary"),
        (b"--B\r\n" + MODEL + b"\r\n--B--", "headers of a part"),
        (b"--B\r\n\r\nno headers\r\n--B--", "Content-Disposition"),
        (form(*[(FILE, b"")] * (MAX_PARTS + 1)), "parts"),
        (form((MODEL, b"demo"), boundary=b"C"), "does not occur"),
        (b"", "does not occur"),
    ],
)
def test_form_without_one_clear_model_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as refused:
        model_field(body, b"B")
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b'Multipart/Form-Data; charset=utf-8;BOUNDARY="a b;c"', b"a b;c"),
        (b'multipart/form-data; boundary="a\\"b"', b'a"b'),
        (b"multipart/form-data;boundary=abc;", b"abc"),
        (b"multipart/form-data ; boundary=abc ; x=y", b"abc"),
        (b"application/json; boundary=abc", None),
        (b"application/x-www-form-urlencoded", None),
    ],
)
def test_boundary_is_read_from_the_content_type(content_type: bytes, boundary: bytes) -> None:
    assert boundary_in([(b"content-type", content_type)]) == boundary


def test_request_without_content_type_is_no_form() -> None:
    assert boundary_in([(b"accept", b"multipart/form-data")]) is None


@pytest.mark.parametrize(
    "content_types",
    [
        [b"multipart/form-data"],
        [b"multipart/form-data; boundary="],
        [b'multipart/form-data; boundary="abc'],
        [b'multipart/form-data; boundary="abc"def'],
        [b"multipart/form-data; boundary=" + b"x" * 71],
        [b"multipart/form-data; boundary=a; boundary=b"],
        [b"multipart/form-data; boundary=a", b"multipart/form-data; boundary=b"],
    ],
)
def test_form_without_one_clear_boundary_is_refused(content_types: list[bytes]) -> None:
    with pytest.raises(InvalidRequest, match="boundary"):
        boundary_in([(b"content-type", value) for value in content_types])


SEMICOLONS = b'Content-Disposition: form-data; name="a' + b";" * 980
QUOTED = b"Content-Disposition: form-data" + b';a="b"' * 160
BACKSLASHES = b'Content-Disposition: form-data; name="a' + b"\\" * 980 + b'"'
LINES = b"Content-Disposition: form-data; name=a" + b"\r\na:b" * 700


@pytest.mark.parametrize("head", [SEMICOLONS, SEMICOLONS + b'"', QUOTED, BACKSLASHES, LINES])
async def test_no_form_stops_the_loop(head: bytes) -> None:
    # As the server hands it on: in pieces of 64 KiB.
    body = form(*[(head, b"x")] * 990)
    async with measured_stall() as stall:
        reader = FormReader(b"B")
        try:
            for at in range(0, len(body), 2**16):
                reader.feed(body[at : at + 2**16])
                await asyncio.sleep(0)
        except InvalidRequest:
            pass
    assert stall.seconds < MAX_STALL_SECONDS


@pytest.mark.parametrize("filling", [b";", b';a="', b"\\", b'"', b"; a=b", b" ", b"=", b"a"])
async def test_no_content_type_stops_the_loop(filling: bytes) -> None:
    async with measured_stall() as stall:
        with contextlib.suppress(InvalidRequest):
            boundary_in([(b"content-type", b"multipart/form-data; a=" + filling * 30_000)])
    assert stall.seconds < MAX_STALL_SECONDS
