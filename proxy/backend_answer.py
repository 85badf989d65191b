"""A backend's own error as the error of a response after its status was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson

from llamactl.core.error_format import PathFamily
from llamactl.core.headers import header
from proxy.errors import BackendFailed
from proxy.upstream import BackendError, UpstreamResponse

MAX_BYTES = 64 * 1024
READ_SECONDS = 10.0
SHOWN_CHARACTERS = 500


class BackendAnswered(BackendFailed):
    """A backend's answer that can't follow the head which llamactl has sent."""

    code = "backend_error"

    def __init__(
        self, details: str, status: int, fields: Mapping[str, object] | None = None
    ) -> None:
        """``fields``: further fields of the backend's error."""
        super().__init__(details)
        self.extra = dict(fields or {})
        self.status = status  # type: ignore[misc] # fixed for the others


async def read_answer(response: UpstreamResponse, first_piece: bytes | None) -> bytes:
    """The body of an answer, as far as it comes in time and within ``MAX_BYTES``."""
    pieces, size = [first_piece or b""], len(first_piece or b"")
    try:
        async with asyncio.timeout(READ_SECONDS):
            while size < MAX_BYTES and not response.is_at_end:
                pieces.append(await response.read())
                size += len(pieces[-1])
    except (TimeoutError, BackendError):
        pass  # what has come is shown
    return b"".join(pieces)[:MAX_BYTES]


def answered(
    name: str, response: UpstreamResponse, body: bytes, family: PathFamily
) -> BackendAnswered:
    """The error that tells the client of the answer of the instance ``name``.

    A backend's error keeps its message and its further fields; any other answer is quoted.
    """
    document = _object(body)
    inner = document.get("error")
    fields = dict(inner) if isinstance(inner, dict) else document
    message = fields.get("message")
    if response.status >= 400 and isinstance(message, str) and message:
        # OpenAI's type and code are none of Anthropic's.
        is_foreign = family is PathFamily.ANTHROPIC and document.get("type") != "error"
        dropped = {"message", "object", *(("type", "code") if is_foreign else ())}
        kept = {key: value for key, value in fields.items() if key not in dropped}
        return BackendAnswered(message, response.status, kept)
    kind = (header(response.headers, b"content-type") or b"no Content-Type").decode("latin-1")
    quoted = body.decode("utf-8", "replace")[:SHOWN_CHARACTERS]
    status = response.status if response.status >= 400 else 502
    return BackendAnswered(
        f"the backend of {name} answered {response.status} ({kind[:100]}) instead of an event"
        f" stream: {quoted}",
        status,
    )


def _object(body: bytes) -> dict[str, object]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
