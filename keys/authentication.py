"""Who sends a request to the management API: the key is taken from it here and looked up."""

from __future__ import annotations

from dataclasses import dataclass

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from keys.secrets import is_management_key
from llamactl.config import current

_BEARER = "Bearer "


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
        key = key_of(
            authorization=_header(request, "Authorization"),
            x_api_key=_header(request, "X-API-Key"),
            # The first one, as in Go; Django's own get() takes the last.
            query=next(iter(request.query_params.getlist("api_key")), ""),
        )
        if not key:
            return None
        if not is_management_key(key, config):
            raise AuthenticationFailed("Invalid API key")
        return Manager(), None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def key_of(*, authorization: str, x_api_key: str, query: str) -> str:
    """The key that counts among the three places; "" where there is none.

    The prefix is ``Bearer `` to the letter. A bearer token that is empty is no key, and the other
    places are not looked at then; another scheme (``Basic …``) leaves them their turn.
    """
    if authorization.startswith(_BEARER):
        return authorization.removeprefix(_BEARER)
    return x_api_key or query


def _header(request: Request, name: str) -> str:
    """The header as the client's bytes mean it: servers hand out Latin-1, people write UTF-8."""
    return (
        request.headers.get(name, "")
        .encode("latin-1", "replace")
        .decode("utf-8", "surrogateescape")
    )
