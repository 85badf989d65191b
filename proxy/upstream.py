"""The connections to the backends."""

from __future__ import annotations

import io
from functools import lru_cache

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from proxy.table import Target

KEEP_ALIVE_SECONDS = 4.0
"""cpp-httplib closes an idle connection after 5 s; one that we drop first can't be cut under us."""

LARGE_BODY_BYTES = 2**20
"""A larger body is written in pieces, so that other requests get their turn between them.
Nothing is copied for it, and it is not chunked: its length is known."""

_SKIPPED_BY_US = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class BackendError(Exception):
    """No answer that could be passed on."""


class Refused(BackendError):
    """Nothing listens there; the request was not sent."""


class Unanswered(BackendError):
    """The connection was closed before a byte of an answer came: it may have been too old."""


class Upstream:
    """One aiohttp session a web process, and a second one for requests that are sent again."""

    def __init__(self) -> None:
        # No total timeout: a generation may take an hour. A backend that is up answers a connect
        # at once, whatever it is busy with.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._pooled = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            auto_decompress=False,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_SKIPPED_BY_US,
            read_bufsize=2**16,
        )
        self._fresh = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            auto_decompress=False,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_SKIPPED_BY_US,
            read_bufsize=2**16,
        )

    async def close(self) -> None:
        await self._pooled.close()
        await self._fresh.close()

    async def open(
        self,
        target: Target,
        *,
        method: str,
        path_and_query: str,
        headers: CIMultiDict[str],
        body: bytes,
        fresh: bool = False,
    ) -> aiohttp.ClientResponse:
        """Send the request and return once the response's headers are there.

        ``fresh`` makes a connection for this request alone. Raises Refused, Unanswered, or
        BackendError where what came back is no HTTP.
        """
        session = self._fresh if fresh else self._pooled
        try:
            return await session.request(
                method,
                _url(target.origin, path_and_query),
                headers=headers,
                data=io.BytesIO(body) if len(body) > LARGE_BODY_BYTES else body or None,
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorError as error:
            raise Refused(str(error)) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise Unanswered(repr(error)) from error
        except aiohttp.ClientError as error:
            raise BackendError(repr(error)) from error


@lru_cache(maxsize=4096)
def _url(origin: str, path_and_query: str) -> URL:
    # encoded=True: the client's own spelling of the path goes on as it is.
    return URL(origin + path_and_query, encoded=True)
