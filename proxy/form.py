"""Which model does a multipart form name, and where in the body does it stand?

Audio and image requests are forms (``multipart/form-data``) with files of many megabytes. The
body is searched in place for its boundary lines; no part of it is decoded or copied but the
headers of the parts and the one short field. Whatever two readers could understand differently
(a boundary line that goes on, a field that is there twice) is refused: the backend must not see
another model than the one that was judged here.
"""

from __future__ import annotations

from collections.abc import Iterable
from email import policy
from email.message import Message
from email.parser import BytesHeaderParser
from typing import NamedTuple

from llamactl.errors import InvalidRequest

MAX_PARTS = 1000
"""OpenAI's requests have about twenty; each is looked at on the event loop."""
MAX_HEADER_BYTES = 8192
MAX_MODEL_BYTES = 1000
_LINE_END = b"\r\n"


class ModelField(NamedTuple):
    """The value of the field ``model``, and its place in the body."""

    model: str
    start: int
    end: int

    def replaced(self, body: bytes, model: str) -> bytes:
        """The body with another value there and every other byte untouched."""
        view = memoryview(body)
        return b"".join((view[: self.start], model.encode(), view[self.end :]))


def boundary_in(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The boundary of a form; ``None`` where the request is none.

    Raises InvalidRequest (400) for a form without a boundary that can be used.
    """
    content_types = [value for name, value in headers if name == b"content-type"]
    if not content_types or not content_types[0].lower().startswith(b"multipart/form-data"):
        return None
    message = Message()
    message["content-type"] = content_types[0].decode("latin-1")
    boundaries = [value for key, value in message.get_params([]) if key.lower() == "boundary"]
    boundary = boundaries[0] if len(content_types) == len(boundaries) == 1 else None
    # RFC 2046, section 5.1.1: up to 70 characters.
    if not isinstance(boundary, str) or not 1 <= len(boundary) <= 70:
        raise _bad_form("its Content-Type must name one boundary of 1 to 70 characters")
    return boundary.encode("latin-1")


def model_field(body: bytes, boundary: bytes) -> ModelField:
    """The one field ``model``, wherever in the body. Raises InvalidRequest (400)."""
    delimiter = _LINE_END + b"--" + boundary
    found: ModelField | None = None
    # The first one may stand at the very beginning, without the line end before it.
    at = -2 if body.startswith(delimiter[2:]) else body.find(delimiter)
    if at == -1:
        raise _bad_form("its boundary does not occur in it")
    for _ in range(MAX_PARTS + 1):
        after = at + len(delimiter)
        if body.startswith(b"--", after):
            break
        if not body.startswith(_LINE_END, after):
            raise _bad_form("something follows a boundary on its line")
        at = body.find(delimiter, after)
        if at == -1:
            raise _bad_form("it breaks off before its last boundary")
        part = _model_in_part(body, after + 2, at)
        if part is not None and found is not None:
            raise _bad_form("model is given twice")
        found = part or found
    else:
        raise _bad_form(f"it has more than {MAX_PARTS} parts")
    if found is None:
        raise InvalidRequest(
            'Model name is required: put a field "model" into the form; GET /v1/models lists the'
            " names"
        )
    return found


def _model_in_part(body: bytes, start: int, end: int) -> ModelField | None:
    """The field of the part between ``start`` and ``end``, if it is the one."""
    # A part may have no headers, and then begins with their last line end.
    blank = start - 2 if body.startswith(_LINE_END, start) else body.find(b"\r\n\r\n", start, end)
    if blank == -1 or blank - start > MAX_HEADER_BYTES:
        raise _bad_form(f"the headers of a part do not end within {MAX_HEADER_BYTES} bytes")
    if _field_name(body[start : blank + 2]) != "model":
        return None
    value = body[blank + 4 : min(end, blank + 5 + MAX_MODEL_BYTES)]
    try:
        model = value.decode()
    except UnicodeDecodeError:
        model = ""
    if not model or len(value) > MAX_MODEL_BYTES:
        raise InvalidRequest(
            f"Invalid model: it must be a text of 1 to {MAX_MODEL_BYTES} bytes in UTF-8"
        )
    return ModelField(model, blank + 4, end)


_parser = BytesHeaderParser(policy=policy.compat32)


def _field_name(headers: bytes) -> str | None:
    """The name of a field; ``None`` for a file, whatever its name."""
    dispositions = _parser.parsebytes(headers).get_all("content-disposition", [])
    if len(dispositions) != 1:
        raise _bad_form("each part must have one Content-Disposition")
    message = Message()
    message["content-disposition"] = dispositions[0]
    names = [
        (key.lower(), value)
        for key, value in message.get_params([], header="content-disposition")
        if key.lower().startswith(("name", "filename"))
    ]
    if any(key.startswith("filename") for key, _ in names):
        return None
    # Not a text: in the extended notation of RFC 2231, which few readers know.
    if len(names) != 1 or names[0][0] != "name" or not isinstance(names[0][1], str):
        raise _bad_form("each part must have one name")
    return names[0][1]


def _bad_form(why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid request body: it is no multipart form ({why})")
