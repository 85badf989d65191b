"""Known browsers: a signed cookie of an earlier login to the same account.

Guesses from many addresses use up the limit of an account. A known browser has a limit of its own,
so that guesses by others can't keep the operator out. (OWASP calls this a device cookie.)
"""

from __future__ import annotations

import secrets

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponse

COOKIE = "llamactl_browser"
MAX_AGE_SECONDS = 180 * 86_400
_SALT = "llamactl.admin.login"


def known_browser(request: HttpRequest, account: str) -> str | None:
    """Return the browser's id, if an earlier login to ``account`` came from it."""
    try:
        content = signing.loads(
            request.COOKIES.get(COOKIE, ""), salt=_SALT, max_age=MAX_AGE_SECONDS
        )
    except signing.BadSignature:
        return None
    # Signed by llamactl, but perhaps by another release.
    is_pair = isinstance(content, list) and len(content) == 2
    return str(content[1]) if is_pair and content[0] == account else None


def remember_browser(request: HttpRequest, response: HttpResponse, account: str) -> None:
    """Make the browser known for ``account``.

    ``Secure`` with ``server.public_url`` by https; without it, added where the request was https.
    """
    browser = known_browser(request, account) or secrets.token_urlsafe(12)
    response.set_cookie(
        COOKIE,
        signing.dumps([account, browser], salt=_SALT),
        max_age=MAX_AGE_SECONDS,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
