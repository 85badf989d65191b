"""Authentication of management API requests by their management key."""

from __future__ import annotations

from dataclasses import dataclass

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from keys.credentials import key_in
from keys.secrets import is_management_key
from llamactl.config import current
from llamactl.core.errors import InvalidKey


@dataclass(frozen=True)
class ManagementClient:
    """The sender of a request with a management key. Keys have no accounts behind them."""

    is_authenticated: bool = True


class ManagementKeyAuthentication(BaseAuthentication):
    """A management key as ``Authorization: Bearer``, else ``X-API-Key``, else ``?api_key=``.

    An inference key never opens the management API. With ``auth.require_management_auth`` off,
    and for OPTIONS, a key is ignored, so that a wrong key does no harm.
    """

    def authenticate(self, request: Request) -> tuple[ManagementClient, None] | None:
        """Return None without a key; raise InvalidKey for a wrong key."""
        config = current()
        if request.method == "OPTIONS" or not config.auth.require_management_auth:
            return None
        key = key_in(*_credentials(request))
        if not key:
            return None
        if not is_management_key(key, config):
            raise InvalidKey
        return ManagementClient(), None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _credentials(request: Request) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the headers and the query string that may hold a key, as the bytes received."""
    headers = [
        # Servers decode headers as Latin-1, whatever their encoding.
        (name.lower().encode(), request.headers[name].encode("latin-1", "replace"))
        for name in ("Authorization", "X-API-Key")
        if name in request.headers
    ]
    return headers, request.META.get("QUERY_STRING", "").encode("utf-8", "replace")
