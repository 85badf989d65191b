"""When may a connection to a backend be used again?

aiohttp keeps a connection whose answer has ended, and takes whatever came on it meanwhile for the
answer to the next request. A backend that says more than its Content-Length, or answers twice,
would so answer one client with what was meant for another.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler


class BackendConnection(ResponseHandler):
    """Closes where the backend speaks without having been asked."""

    _is_asked = True
    """Until the first request there is no parser, and nothing to take for its answer."""

    def _drain_tail(self) -> None:
        """What aiohttp calls before it sends a request, without arguments to be passed on."""
        self._is_asked = True
        super()._drain_tail()

    def feed_data(self, data: Any, size: int = 0) -> None:
        """What aiohttp calls with the head of an answer."""
        # After an interim answer the real one is still to come; after 101 there is no HTTP.
        if data[0].code >= 200:
            self._is_asked = False
        _feed_data(self, data, size)

    def data_received(self, data: bytes) -> None:
        if (
            not self._is_asked
            and data
            and self.transport is not None
            and (self._payload is None or self._payload.is_eof())
        ):
            self.force_close()
            self.transport.close()
            return
        _data_received(self, data)


# Bound once: these are called for each piece of each answer.
_feed_data = ResponseHandler.feed_data
_data_received = ResponseHandler.data_received


class Connector(aiohttp.TCPConnector):
    """aiohttp's, with connections of ours; as many as there are requests."""

    def __init__(self, **options: Any) -> None:
        super().__init__(limit=0, **options)
        factory = functools.partial(BackendConnection, loop=self._loop)
        self._factory = cast("functools.partial[ResponseHandler]", factory)
