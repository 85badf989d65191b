"""An instance's log as plain text: all of it, or its last lines."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import BinaryIO

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request

from instances import lifecycle
from instances.api import schema
from instances.api.parameters import lines_of
from instances.errors import LogsUnreadable
from instances.supervisor.logfiles import log_path, tail
from llamactl.config import current
from llamactl.endpoints import ApiViewSet
from llamactl.openapi import PLAIN_TEXT

CONTENT_TYPE = f"{PLAIN_TEXT}; charset=utf-8"
_BLOCK_BYTES = 64 * 1024


class LogViewSet(ApiViewSet):
    @schema.read_log
    def logs(self, request: Request, name: str) -> HttpResponseBase:
        lines = lines_of(request.query_params)
        path = log_path(current(), lifecycle.get(name).name)
        try:
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
    file = path.open("rb")
    return StreamingHttpResponse(LogStream(file), content_type=CONTENT_TYPE)


class LogStream:
    """What is in a log file now, block by block; what is written meanwhile is left out.

    Django closes the response, and with it this, also when the client goes away.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._remaining = os.fstat(file.fileno()).st_size

    def __aiter__(self) -> LogStream:
        return self

    async def __anext__(self) -> bytes:
        block = await asyncio.to_thread(self._file.read, min(_BLOCK_BYTES, self._remaining))
        if not block:
            raise StopAsyncIteration
        self._remaining -= len(block)
        return block

    def close(self) -> None:
        self._file.close()
