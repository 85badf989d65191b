"""An instance's log: all of it or its last lines as plain text, or line by line as it grows."""

from __future__ import annotations

import asyncio
from pathlib import Path

from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request

from instances import lifecycle
from instances.api import schema
from instances.api.log_stream import READERS, LogFollower
from instances.api.query_params import flag_of, lines_of
from instances.errors import FollowingNotServed, LogsUnreadable
from instances.logs.files import log_path, tail
from instances.logs.reader import BEFORE_THE_FIRST, LogReader, Position, position_of_last, start_of
from llamactl.api.views import ApiViewSet
from llamactl.config import current
from llamactl.openapi import EVENT_STREAM, PLAIN_TEXT

CONTENT_TYPE = f"{PLAIN_TEXT}; charset=utf-8"
FOLLOWED_LINES = 100
"""Of the past, unless asked for more or less."""
_BLOCK_BYTES = 64 * 1024


class LogViewSet(ApiViewSet):
    @schema.read_log
    def logs(self, request: Request, name: str) -> HttpResponseBase:
        is_followed = flag_of(request.query_params, "follow")
        lines = lines_of(request.query_params)
        name = lifecycle.get(name).name
        path = log_path(current(), name)
        try:
            if is_followed:
                return _followed(request, name, path)
            return _last_lines(path, lines) if lines is not None else _whole(path)
        except FileNotFoundError:
            # Never started, which is no fault: the seed answers 500 here.
            return HttpResponse(content_type=CONTENT_TYPE)
        except OSError as error:
            raise LogsUnreadable(f"the log of {name} can't be read: {error.strerror}") from error


def _last_lines(path: Path, lines: int) -> HttpResponse:
    text = "".join(f"{line}\n" for line in tail(path, lines))
    return HttpResponse(text.encode("utf-8", "replace"), content_type=CONTENT_TYPE)


def _whole(path: Path) -> StreamingHttpResponse:
    return StreamingHttpResponse(LogStream(path), content_type=CONTENT_TYPE)


def _followed(request: Request, name: str, path: Path) -> HttpResponseBase:
    """Raises OSError, FollowingNotServed and TooManyFollowers."""
    headers = {
        "Content-Type": EVENT_STREAM,
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",  # nginx would collect what it sends on
    }
    if request.method == "HEAD":
        return HttpResponse(headers=headers)
    if not isinstance(request._request, ASGIRequest):
        raise FollowingNotServed(
            "follow needs llamactl to be served by ASGI (manage.py run); under WSGI, ask for lines"
        )
    # Else it would be held as long as the client listens: Django closes it after the response.
    close_old_connections()
    reader = LogReader(path, _beginning(request, path))
    return StreamingHttpResponse(LogFollower(reader, name), headers=headers)


def _beginning(request: Request, path: Path) -> Position:
    """After the last line that the client has, or its ``lines`` before the end."""
    seen = Position.from_text(request.headers.get("Last-Event-ID", ""))
    if seen is not None:
        return seen
    if "lines" not in request.query_params:
        return position_of_last(path, FOLLOWED_LINES)
    lines = lines_of(request.query_params)
    if lines is not None:
        return position_of_last(path, lines)
    try:
        return start_of(path)[0]
    except FileNotFoundError:
        return BEFORE_THE_FIRST


class LogStream:
    """What is in the current file now, block by block; what is written meanwhile is left out.

    Django closes the response, and with it this, also when the client goes away.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        start, self._remaining = start_of(path)
        self._reader = LogReader(path, start)

    def __aiter__(self) -> LogStream:
        return self

    async def __anext__(self) -> bytes:
        limit = min(_BLOCK_BYTES, self._remaining)
        loop = asyncio.get_running_loop()
        block = await loop.run_in_executor(READERS, self._reader.read, limit)
        if not block:
            raise StopAsyncIteration
        self._remaining -= len(block)
        return block

    def close(self) -> None:
        self._reader.close()
