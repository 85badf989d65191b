"""Who sends a request to the management API: the key is taken from it here and looked up."""

from __future__ import annotations

from dataclasses import dataclass

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from keys.credentials import key_in
from keys.secrets import is_management_key
from llamactl.config import current


@dataclass(frozen=True)
class Manager:
    """Whoever holds a management key; there are no accounts behind keys."""

    is_authenticated: bool = True


class ManagementKeyAuthentication(BaseAuthentication):
    """A management key as ``Authorization: Bearer``, else ``X-API-Key``, else ``?api_key=``.

    Inference keys never open the management API. With ``auth.require_management_auth`` off, and
    for OPTIONS, no key is looked at, so that a wrong one does no harm either.
    """

    def authenticate(self, request: Request) -> tuple[Manager, None] | None:
        """None without a key; raises AuthenticationFailed for a wrong one."""
        config = current()
        if request.method == "OPTIONS" or not config.auth.require_management_auth:
            return None
        key = key_in(*_places(request))
        if not key:
            return None
        if not is_management_key(key, config):
            raise AuthenticationFailed("Invalid API key")
        return Manager(), None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _places(request: Request) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers and the query string that may hold the key, as the client's own bytes."""
    headers = [
        # Servers hand headers out as Latin-1, whatever they are.
        (name.lower().encode(), request.headers[name].encode("latin-1", "replace"))
        for name in ("Authorization", "X-API-Key")
        if name in request.headers
    ]
    return headers, request.META.get("QUERY_STRING", "").encode("utf-8", "replace")
