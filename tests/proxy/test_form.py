from __future__ import annotations

import pytest

from llamactl.errors import InvalidRequest
from proxy.form import MAX_PARTS, boundary_in, model_field

MODEL = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'


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
        (form((MODEL, b"demo"), end=b""), "follows a boundary"),
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
        [b"multipart/form-data; boundary=" + b"x" * 71],
        [b"multipart/form-data; boundary=a; boundary=b"],
        [b"multipart/form-data; boundary=a", b"multipart/form-data; boundary=b"],
    ],
)
def test_form_without_one_clear_boundary_is_refused(content_types: list[bytes]) -> None:
    with pytest.raises(InvalidRequest, match="boundary"):
        boundary_in([(b"content-type", value) for value in content_types])
