"""Who may call a side that asks for no key: programs, and no web page of somebody else's.

Where ``auth.require_…_auth`` is off, listening on loopback keeps other machines out, but not the
pages in the operator's own browser: any of them may post here, and one that has its host name
resolve to 127.0.0.1 may even read the answer. Programs send no ``Origin`` and name us as we are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from llamactl.core.asgi_types import Application, Receive, Scope, Send
from llamactl.core.errors import LlamactlError, PermissionDenied

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class ForeignPage(PermissionDenied):
    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} may not call a llamactl that asks for no key; require keys, or name it in"
            " server.allowed_origins"
        )


class OpenAccessGuard:
    """Lets requests in that no foreign web page can make; only for where keys are switched off."""

    def __init__(
        self,
        application: Application,
        refuse: Callable[[Scope, Send, LlamactlError], Awaitable[None]],
        *,
        host: str,
        allowed_origins: list[str],
    ) -> None:
        self._application = application
        self._refuse = refuse
        self._origins = frozenset(allowed_origins) - {"*"}
        # Bound to more than loopback we can't know all our names, and others get in anyway.
        self._names = _LOOPBACK_NAMES | {host} if host in _LOOPBACK_NAMES else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                self.check(dict(scope["headers"]))
            except ForeignPage as error:
                await self._refuse(scope, send, error)
                return
        await self._application(scope, receive, send)

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Raise ForeignPage for what a page of another origin sent, or sent by another name."""
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin in self._origins:
            return
        if self._names is not None and host and _name_of(f"//{host}") not in self._names:
            raise ForeignPage(f"a page of {host[:80]!r}")
        if origin and origin not in (f"http://{host}", f"https://{host}"):
            raise ForeignPage(f"a page of {origin[:80]!r}")
        if headers.get(b"sec-fetch-site") == b"cross-site":
            raise ForeignPage("a page of another site")


def _name_of(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
