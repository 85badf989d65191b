"""Log endpoint of an instance: plain text, or server-sent events while the log grows."""

from __future__ import annotations

import asyncio

from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request

from instances import lifecycle
from instances.api import schema
from instances.api.log_stream import READERS, LogEventStream
from instances.api.query_params import flag_of, lines_of
from instances.errors import FollowingNotServed
from llamactl.api.views import ApiViewSet
from llamactl.openapi import EVENT_STREAM, PLAIN_TEXT
from nodes.agent import LogText, NodeAgent, agent_for

CONTENT_TYPE = f"{PLAIN_TEXT}; charset=utf-8"
FOLLOWED_LINES = 100
"""Lines of the past at the start of a followed log, if the client names no number."""
_BLOCK_BYTES = 64 * 1024


class LogViewSet(ApiViewSet):
    @schema.read_log
    def logs(self, request: Request, name: str) -> HttpResponseBase:
        is_followed = flag_of(request.query_params, "follow")
        lines = lines_of(request.query_params)
        instance = lifecycle.get(name)
        agent = agent_for(instance.node.name)
        if is_followed:
            return _followed(request, instance.name, agent)
        text = agent.read_log(instance.name, lines=lines)
        if text is None:
            # No log before the first start; the seed answers 500 here.
            return HttpResponse(content_type=CONTENT_TYPE)
        if lines is None:
            return StreamingHttpResponse(LogBlocks(text), content_type=CONTENT_TYPE)
        return _last_lines(text)


def _last_lines(text: LogText) -> HttpResponseBase:
    """Respond with all lines at once, as usual, or with a stream where they are many."""
    beginning = b""
    while block := text.read(_BLOCK_BYTES):
        beginning += block
        if len(beginning) >= _BLOCK_BYTES:
            blocks = LogBlocks(text, beginning)
            return StreamingHttpResponse(blocks, content_type=CONTENT_TYPE)
    text.close()
    return HttpResponse(beginning, content_type=CONTENT_TYPE)


def _followed(request: Request, name: str, agent: NodeAgent) -> HttpResponseBase:
    """Raises LogUnreadable, FollowingNotServed and TooManyFollowers."""
    headers = {
        "Content-Type": EVENT_STREAM,
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",  # nginx buffers a response otherwise
    }
    if request.method == "HEAD":
        return HttpResponse(headers=headers)
    if not isinstance(request._request, ASGIRequest):
        raise FollowingNotServed(
            "follow needs llamactl to be served by ASGI (manage.py run); under WSGI, ask for lines"
        )
    # Django closes the connection after the response, which lasts as long as the client listens.
    close_old_connections()
    after = request.headers.get("Last-Event-ID", "")
    lines = lines_of(request.query_params) if "lines" in request.query_params else FOLLOWED_LINES
    log = agent.follow_log(name, lines=lines, after=after)
    return StreamingHttpResponse(LogEventStream(log, name), headers=headers)


class LogBlocks:
    """Response body of a whole log, block by block.

    Django closes the response and thereby this object, on a disconnect too.
    """

    def __init__(self, text: LogText, beginning: bytes = b"") -> None:
        """``beginning``: what was read of the text already."""
        self._text = text
        self._beginning = beginning

    def __aiter__(self) -> LogBlocks:
        return self

    async def __anext__(self) -> bytes:
        if self._beginning:
            beginning, self._beginning = self._beginning, b""
            return beginning
        loop = asyncio.get_running_loop()
        block = await loop.run_in_executor(READERS, self._text.read, _BLOCK_BYTES)
        if not block:
            raise StopAsyncIteration
        return block

    def close(self) -> None:
        self._text.close()
