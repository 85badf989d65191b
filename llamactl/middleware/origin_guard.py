"""Guard against pages of other web sites, for an API that needs no key.

With ``auth.require_…_auth`` off, listening on loopback keeps other machines out, but not the pages
in the operator's own browser. Any page may send a POST here. A page whose host name resolves to
127.0.0.1 (DNS rebinding) may even read the response. Programs send no ``Origin``, and use a
loopback name as ``Host``.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from llamactl.core.asgi_types import Application, Receive, Scope, Send
from llamactl.core.backend_ui import came_by_ui_port
from llamactl.core.error_response import send_error
from llamactl.core.errors import PermissionDenied

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class ForeignPage(PermissionDenied):
    """A request of a page of another web site."""

    def __init__(self, page: str) -> None:
        super().__init__(
            f"{page} may not call a llamactl that asks for no key; require keys, or name it in"
            " server.allowed_origins"
        )


class OriginGuard:
    """Refuses requests of foreign pages with 403. Needed only where keys are switched off."""

    def __init__(
        self,
        application: Application,
        *,
        host: str,
        allowed_origins: list[str],
        public_origin: str = "",
        ui_origin: str = "",
    ) -> None:
        """``ui_origin``: that of ``server.backend_ui_url``, known on the backends' port alone."""
        self._application = application
        self._origins = (frozenset(allowed_origins) - {"*"}) | {public_origin} - {""}
        self._ui_origin = ui_origin
        # Bound to more than loopback, our names are unknown, and other machines get in anyway.
        # A reverse proxy may send the public name as ``Host``.
        names = _LOOPBACK_NAMES | {host, _name_of(public_origin)} - {""}
        self._names = names if host in _LOOPBACK_NAMES else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                self.check(dict(scope["headers"]), is_ui=came_by_ui_port(scope))
            except ForeignPage as error:
                await send_error(scope, send, error)
                return
        await self._application(scope, receive, send)

    def check(self, headers: dict[bytes, bytes], *, is_ui: bool = False) -> None:
        """Raise ForeignPage for another origin, or for another name of this host."""
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        ui_origin = self._ui_origin if is_ui else ""
        if origin in self._origins or (origin and origin == ui_origin):
            return
        name = _name_of(f"//{host}")
        is_ui_name = ui_origin != "" and name == _name_of(ui_origin)
        if self._names is not None and host and name not in self._names and not is_ui_name:
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
