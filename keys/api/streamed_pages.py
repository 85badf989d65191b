"""Body of a long response: one page of a query after the other, read in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import StreamingHttpResponse
from rest_framework.request import Request

_THREADS = ThreadPoolExecutor(2, thread_name_prefix="reports")
"""A report of a year takes a second, and must not hold up other threads."""


class StreamedPages:
    """Not a generator: Django closes only generators of its own."""

    def __init__(self) -> None:
        self.is_at_end = False

    def read_piece(self) -> bytes:
        """Return the next page, and set ``is_at_end`` with the last one."""
        raise NotImplementedError

    def response(
        self, request: Request, content_type: str, headers: Mapping[str, str]
    ) -> StreamingHttpResponse:
        is_async = isinstance(request._request, ASGIRequest)
        body = self if is_async else self._under_wsgi()
        return StreamingHttpResponse(body, content_type=content_type, headers=dict(headers))

    def __aiter__(self) -> StreamedPages:
        return self

    async def __anext__(self) -> bytes:
        if self.is_at_end:
            raise StopAsyncIteration
        return await asyncio.get_running_loop().run_in_executor(_THREADS, self._read_in_thread)

    def _read_in_thread(self) -> bytes:
        close_old_connections()
        return self.read_piece()

    def _under_wsgi(self) -> Iterator[bytes]:
        while not self.is_at_end:
            yield self.read_piece()
