"""Limits on the bodies of requests to Django: of each body, and of all bodies together.

Django writes a whole body to a temporary file before any view, and so before any key, is checked.
Without these limits outside of Django, any client could fill disk and memory. The proxy has limits
of its own.
"""

from __future__ import annotations

import asyncio

from llamactl.core.asgi_types import Application, Message, Receive, Scope, Send
from llamactl.core.content_coding import refuse_packed
from llamactl.core.error_response import send_error
from llamactl.core.errors import BodyTooLarge, LlamactlError
from llamactl.core.headers import header

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""More than the limit of ``json_parser``, which has a better message."""

MAX_FORM_BYTES = 24 * 1024
"""Limit of the bodies of all other paths, which are the admin's forms. A form that is shown again
with its errors is part of a page of 84 KB, of which up to four copies are made, and one quotation
mark has six bytes there. 24 KiB take up to 0.8 MB, 64 KiB 2 MB."""

MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Limit on all bodies of a web process: incomplete ones, and those of requests that wait for a
thread or are being answered."""


MAX_QUERY_BYTES = 2 * 1024
"""Limit of the query of all other paths. A list of the admin repeats it in each link: 7 KB made a
page of 250 KB, of which four copies are made."""


class QueryTooLong(LlamactlError):
    """A page's query beyond its limit."""

    code = "uri_too_long"
    status = 414

    def __init__(self) -> None:
        super().__init__(f"the query of a page must have at most {MAX_QUERY_BYTES} bytes")


class TooManyBodies(LlamactlError):
    """An incomplete body that is refused in favour of the bodies of other requests."""

    code = "too_many_uploads"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "llamactl receives too many request bodies at once; send this one again",
            retry_after=5,
        )


class BodyLimit:
    """Receives a body whole before the application runs.

    A body of more than ``max_bytes``, or of more than MAX_FORM_BYTES outside of the API, is refused
    with 413. When all bodies have more than ``max_waiting_bytes``, the largest incomplete one is
    refused with 503, so that a login still gets through.
    """

    def __init__(
        self,
        application: Application,
        max_bytes: int = MAX_REQUEST_BYTES,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._application = application
        self._max_bytes = max_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: set[_WaitingBody] = set()
        self._complete_bytes = 0
        """Of the bodies of requests that the application has not answered yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        try:
            received: Message | None = await self._whole_body(scope, receive)
        except LlamactlError as error:
            await send_error(scope, send, error, (b"connection", b"close"))
            return

        async def receive_whole() -> Message:
            nonlocal received
            if received is None:
                return await receive()
            message, received = received, None
            return message

        size = len(received.get("body", b"")) if received is not None else 0
        self._complete_bytes += size
        try:
            await self._application(scope, receive_whole, send)
        finally:
            self._complete_bytes -= size

    async def _whole_body(self, scope: Scope, receive: Receive) -> Message:
        """The body as one message, or the disconnect.

        Raises BodyTooLarge, TooManyBodies, QueryTooLong or PackedBody.
        """
        refuse_packed(scope["headers"])
        limit = self._limit_of(scope)
        if not _is_of_api(scope) and len(scope.get("query_string", b"")) > MAX_QUERY_BYTES:
            raise QueryTooLong
        what_else = "" if limit == self._max_bytes else "; the API takes larger documents"
        too_large = BodyTooLarge(f"the request body must have at most {limit} bytes{what_else}")
        if _content_length(scope) > limit:
            raise too_large
        waiting = _WaitingBody()
        self._waiting.add(waiting)
        try:
            while (message := await receive())["type"] != "http.disconnect":
                waiting.content += message.get("body", b"")
                if len(waiting.content) > limit:
                    raise too_large
                if not message.get("more_body", False):
                    return {"type": "http.request", "body": waiting.take(), "more_body": False}
                self._bound_waiting_bodies()
            return message
        except asyncio.CancelledError:
            if not waiting.is_refused or waiting.task.uncancel():
                raise
            raise TooManyBodies from None
        finally:
            self._waiting.discard(waiting)

    def _limit_of(self, scope: Scope) -> int:
        if _is_of_api(scope):
            return self._max_bytes
        return min(self._max_bytes, MAX_FORM_BYTES)

    def _bound_waiting_bodies(self) -> None:
        waiting_bytes = sum(len(each.content) for each in self._waiting)
        if waiting_bytes + self._complete_bytes > self._max_waiting_bytes:
            largest = max(self._waiting, key=lambda each: len(each.content))
            self._waiting.discard(largest)
            largest.refuse()


def _is_of_api(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")).startswith("/api/")


class _WaitingBody:
    """The body of a request as far as it was received."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.is_refused = False
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in a task here
        self.task = task

    def refuse(self) -> None:
        self.is_refused = True
        self.content.clear()
        self.task.cancel()

    def take(self) -> bytes:
        content = bytes(self.content)
        self.content.clear()
        return content


def _content_length(scope: Scope) -> int:
    """Return the Content-Length, or 0 without a numeric one, which servers refuse."""
    length = header(scope["headers"], b"content-length") or b""
    return int(length[:20]) if length.isdigit() else 0
