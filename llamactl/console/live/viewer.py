"""Account behind an open page: found by the session, and asked for its permissions again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest, parse_cookie

from llamactl.core.change_feed import SESSIONS, process_feed
from llamactl.core.events import publish

MAX_SESSION_KEY_LENGTH = 40
"""The width of the sessions' column."""


@dataclass(frozen=True)
class Viewer:
    """What an account may see on the live pages."""

    may_see_instances: bool
    may_see_logs: bool
    may_see_nodes: bool


def session_key_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the session's key from the cookie of a handshake, or ""."""
    for name, value in headers:
        if name == b"cookie":
            key = parse_cookie(value.decode("latin-1")).get(settings.SESSION_COOKIE_NAME, "")
            if key.isalnum() and len(key) <= MAX_SESSION_KEY_LENGTH:
                return key
    return ""


def viewer_of(session_key: str) -> Viewer | None:
    """Return the session's account, or ``None`` if it may not use the admin (any more)."""
    request = HttpRequest()
    request.session = SessionStore(session_key)
    request.user = get_user(request)
    return viewer_of_request(request)


def viewer_of_request(request: HttpRequest) -> Viewer | None:
    if not admin.site.has_permission(request):
        return None
    user = request.user
    may_see_instances = _may_view(user, "instances", "instance")
    may_see_nodes = _may_view(user, "nodes", "node")
    return Viewer(
        may_see_instances=may_see_instances,
        may_see_logs=may_see_instances,
        may_see_nodes=may_see_instances or may_see_nodes,
    )


def _may_view(user: User | AnonymousUser, app: str, model: str) -> bool:
    """Whether the account may see a model's pages, as the admin decides it."""
    return user.has_perm(f"{app}.view_{model}") or user.has_perm(f"{app}.change_{model}")


def digest_of(session_key: str) -> str:
    """Return the name of a session in events: the key itself would open the admin."""
    return sha256(session_key.encode()).hexdigest()


def _on_logout(request: HttpRequest, **_: object) -> None:
    """Close the pages of the session, in this web process and the others."""
    key = request.session.session_key
    if key:
        process_feed.notify(SESSIONS, digest_of(key))
        publish({"topic": SESSIONS, "name": digest_of(key)})


def watch_logouts() -> None:
    user_logged_out.connect(_on_logout, dispatch_uid="llamactl.console.live")
