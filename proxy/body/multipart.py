"""The field ``model`` of a multipart form: its value, and its place in the body.

Audio and image requests are forms (``multipart/form-data``) with files of many megabytes. The body
is searched for boundary lines as it comes. Only the headers of parts and the one short field are
decoded or kept. Ambiguous forms (text behind a boundary on its line, a repeated field) are refused,
also after the model was found: the backend must not read another model than llamactl did.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from enum import Enum, auto
from typing import NamedTuple

from llamactl.core.errors import InvalidRequest
from proxy.body.part_headers import MAX_HEADER_BYTES, dispositions, parameters

MAX_PARTS = 1000
"""OpenAI's requests have about twenty; each part takes time on the event loop."""
MAX_PART_HEADER_BYTES = 4096
MAX_ALL_HEADER_BYTES = 256 * 1024
"""Of all parts; a usual part has about a hundred bytes of headers."""
MAX_MODEL_BYTES = 1000
STEP_BYTES = 256 * 1024
_LINE_END = b"\r\n"


class ModelField(NamedTuple):
    """The value of the field ``model``, and its place in the body."""

    model: str
    start: int
    end: int

    def replaced(self, body: bytes, model: str) -> bytes:
        """The body with another model."""
        return b"".join(self.parts_with(body, model))

    def parts_with(self, body: bytes, model: str) -> list[bytes | memoryview]:
        """The parts of the body with another value of the field, and every other byte untouched."""
        view = memoryview(body)
        return [view[: self.start], model.encode(), view[self.end :]]


def boundary_in(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The boundary of a form; ``None`` for a request that is no form.

    Raises InvalidRequest (400) for a form without a usable boundary.
    """
    content_types = [value for name, value in headers if name == b"content-type"]
    if not content_types or not content_types[0].lower().startswith(b"multipart/form-data"):
        return None
    content_type = parameters(content_types[0])
    pairs = content_type.pairs if content_type is not None else ()
    boundaries = [value for name, value in pairs if name == b"boundary"]
    # RFC 2046, section 5.1.1: up to 70 characters.
    if len(content_types) != 1 or len(boundaries) != 1 or not 1 <= len(boundaries[0]) <= 70:
        raise _bad_form("its Content-Type must name one boundary of 1 to 70 characters")
    return boundaries[0]


def model_field(body: bytes, boundary: bytes) -> ModelField:
    """The field ``model`` of a whole body. Raises InvalidRequest (400)."""
    reader = FormReader(boundary)
    reader.feed(body)
    return reader.end()


def model_field_steps(body: bytes, boundary: bytes) -> Generator[None, None, ModelField]:
    """``model_field`` of a large body, in steps."""
    reader = FormReader(boundary)
    for at in range(0, len(body), STEP_BYTES):
        reader.feed(body[at : at + STEP_BYTES])
        yield
    return reader.end()


class _State(Enum):
    """The reader's place in a form."""

    BEGINNING = auto()
    PREAMBLE = auto()
    BOUNDARY = auto()
    """After a boundary, before the end of its line."""
    HEADERS = auto()
    OTHER_PART = auto()
    MODEL = auto()
    END = auto()


class FormReader:
    """Incremental search for the field; every method may raise InvalidRequest (400)."""

    def __init__(self, boundary: bytes) -> None:
        self.field: ModelField | None = None
        """The field, once it has come whole."""
        self._delimiter = _LINE_END + b"--" + boundary
        self._state = _State.BEGINNING
        self._parts = 0
        self._header_bytes = 0
        """Of all parts so far."""
        self._held = b""
        """The last bytes so far, which can't be parsed without the next piece."""
        self._held_from = 0
        """The place of the held bytes in the body."""

    def feed(self, piece: bytes) -> None:
        """Parse the next piece of the body."""
        data = self._held + piece if self._held else piece
        done = self._read(data)
        self._held = data[done:]
        self._held_from += done

    def end(self) -> ModelField:
        """The field, after the last piece."""
        if self._state in (_State.BEGINNING, _State.PREAMBLE):
            raise _bad_form("its boundary does not occur in it")
        if self._state is not _State.END:
            raise _bad_form("it breaks off before its last boundary")
        if self.field is None:
            raise InvalidRequest(
                'Model name is required: put a field "model" into the form; GET /v1/models lists'
                " the names"
            )
        return self.field

    def _read(self, data: bytes) -> int:
        """Parse as much as possible; returns the number of bytes parsed."""
        done = 0
        while True:
            before = done, self._state
            if self._state in (_State.BEGINNING, _State.PREAMBLE, _State.OTHER_PART):
                done = self._skip(data, done)
            elif self._state is _State.BOUNDARY:
                done = self._read_line_end(data, done)
            elif self._state is _State.HEADERS:
                done = self._read_headers(data, done)
            elif self._state is _State.MODEL:
                done = self._read_model(data, done)
            else:
                return len(data)
            if (done, self._state) == before:
                return done

    def _skip(self, data: bytes, done: int) -> int:
        """Skip to the next boundary."""
        delimiter = self._delimiter
        if self._state is _State.BEGINNING:
            # The first boundary may be at the very beginning, without a line end before it.
            if data.startswith(delimiter[2:]):
                self._state = _State.BOUNDARY
                return len(delimiter) - 2
            if len(data) < len(delimiter):
                return done
            self._state = _State.PREAMBLE
        found = data.find(delimiter, done)
        if found == -1:
            return max(done, len(data) - len(delimiter) + 1)
        self._state = _State.BOUNDARY
        return found + len(delimiter)

    def _read_line_end(self, data: bytes, done: int) -> int:
        if len(data) < done + 2:
            return done
        if data.startswith(b"--", done):
            self._state = _State.END
            return len(data)
        if not data.startswith(_LINE_END, done):
            raise _bad_form("something follows a boundary on its line")
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _bad_form(f"it has more than {MAX_PARTS} parts")
        self._state = _State.HEADERS
        return done + 2

    def _read_headers(self, data: bytes, done: int) -> int:
        delimiter = self._delimiter
        # A part without headers begins with the empty line.
        blank = done - 2 if data.startswith(_LINE_END, done) else data.find(b"\r\n\r\n", done)
        # No boundary may begin within the headers, or with the line end after them.
        end = len(data) if blank == -1 else blank + 2 + len(delimiter)
        size = end - len(delimiter) - done
        if data.find(delimiter, done, end) != -1 or size > MAX_PART_HEADER_BYTES:
            raise _bad_form(
                f"the headers of a part do not end within {MAX_PART_HEADER_BYTES} bytes"
            )
        if blank == -1 or len(data) < end:
            return done
        self._header_bytes += size
        if self._header_bytes > MAX_ALL_HEADER_BYTES:
            raise _bad_form(f"the headers of its parts have more than {MAX_ALL_HEADER_BYTES} bytes")
        is_model = _field_name(data[done : blank + 2]) == b"model"
        self._state = _State.MODEL if is_model else _State.OTHER_PART
        return blank + 4

    def _read_model(self, data: bytes, done: int) -> int:
        end = data.find(self._delimiter, done)
        known = data[done : end if end != -1 else max(done, len(data) - len(self._delimiter))]
        if end == -1 and len(known) <= MAX_MODEL_BYTES:
            return done
        try:
            model = known.decode()
        except UnicodeDecodeError:
            model = ""
        if not model or len(known) > MAX_MODEL_BYTES:
            raise InvalidRequest(
                f"Invalid model: it must be a text of 1 to {MAX_MODEL_BYTES} bytes in UTF-8"
            )
        if self.field is not None:
            raise _bad_form("model is given twice")
        self.field = ModelField(model, self._held_from + done, self._held_from + end)
        self._state = _State.BOUNDARY
        return end + len(self._delimiter)


def _field_name(headers: bytes) -> bytes | None:
    """The name of a field; ``None`` for a file."""
    values = dispositions(headers)
    if values is None:
        raise _bad_form(
            f"each header of a part must be one line of at most {MAX_HEADER_BYTES} bytes"
        )
    disposition = parameters(values[0]) if len(values) == 1 else None
    if disposition is None:
        raise _bad_form("each part must have one valid Content-Disposition")
    names = [pair for pair in disposition.pairs if pair[0].startswith((b"name", b"filename"))]
    if any(name.startswith(b"filename") for name, _ in names):
        return None
    # Not "name*", the extended notation of RFC 2231, which few parsers know. Of a backslash some
    # parsers make another name than others.
    if len(names) != 1 or names[0][0] != b"name" or b"\\" in values[0]:
        raise _bad_form("each part must have one name, without backslashes")
    return names[0][1]


def _bad_form(why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid request body: it is no multipart form ({why})")
