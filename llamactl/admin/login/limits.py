"""Limits on failed logins, of an address, of an account, and of both together.

An attempt is counted before its password is compared, and taken back if it succeeds: any number of
attempts at the same moment stays below the limits. An attempt beyond a limit is counted nowhere, so
one address can't use up the limit of an account.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from django.db import transaction
from django.http import HttpRequest

from llamactl.admin.login.addresses import client_network
from llamactl.admin.login.errors import TooManyAttempts
from llamactl.admin.login.known_browsers import known_browser
from llamactl.models import LoginAttempts
from llamactl.models.login_attempts import CLOCKS_APART

WINDOW = timedelta(minutes=15)
KEPT = 4 * WINDOW
"""Age of the rows that are removed: no attempt of another process needs them any more."""

PAIR_LIMIT = 5
ADDRESS_LIMIT = 20
ACCOUNT_LIMIT = 50
BROWSER_LIMIT = 5


@dataclass(frozen=True)
class Limit:
    """Number of failures of one subject within the window."""

    subject: str
    failures: int
    scope: str
    """The subject in words, for the error."""
    is_own: bool = False
    """Whether a successful login ends the count: the subject holds the account."""


def account_id(username: str) -> str:
    """Return an id of bounded length; names that differ in their case alone share one."""
    return _digest(unicodedata.normalize("NFKC", username).casefold())


def limits_of(request: HttpRequest, username: str) -> tuple[Limit, ...]:
    """Return the limits of an attempt. A known browser of the account has its own alone."""
    account = account_id(username)
    if (browser := known_browser(request, account)) is not None:
        subject = _subject("browser", account, browser)
        return (Limit(subject, BROWSER_LIMIT, "from this browser", is_own=True),)
    address = client_network(request)
    pair = _subject("pair", address, account)
    return (
        Limit(_subject("address", address), ADDRESS_LIMIT, "from this address"),
        Limit(pair, PAIR_LIMIT, "to this account from this address", is_own=True),
        Limit(_subject("account", account), ACCOUNT_LIMIT, "to this account"),
    )


def is_known(limits: Sequence[Limit]) -> bool:
    """Whether the attempt comes from a known browser."""
    return len(limits) == 1


def refuse_beyond(limits: Sequence[Limit], now: datetime) -> None:
    """Refuse an attempt whose limit is used up, without counting it. Raises TooManyAttempts."""
    rows = LoginAttempts.objects.in_bulk([limit.subject for limit in limits])
    for limit in limits:
        row = rows.get(limit.subject)
        if row is not None and row.count >= limit.failures:
            _refuse(limit, row.began_at, now)


def count(limits: Sequence[Limit], now: datetime) -> list[Limit]:
    """Count an attempt, or count nothing; returns the limits that it uses up.

    Raises TooManyAttempts.
    """
    LoginAttempts.objects.filter(began_at__lte=now - KEPT).delete()
    used_up = []
    with transaction.atomic():
        for limit in limits:
            row = LoginAttempts.add(limit.subject, now, now - WINDOW)
            if row.count > limit.failures:
                _refuse(limit, row.began_at, now)
            if row.count == limit.failures:
                used_up.append(limit)
    return used_up


def forgive(limits: Sequence[Limit]) -> None:
    """Take back an attempt that succeeded."""
    own = [limit.subject for limit in limits if limit.is_own]
    LoginAttempts.objects.filter(subject__in=own).delete()
    for limit in limits:
        if not limit.is_own:
            LoginAttempts.subtract(limit.subject)


def _refuse(limit: Limit, began_at: datetime, now: datetime) -> None:
    left = began_at + WINDOW - now
    if timedelta(0) < left <= WINDOW + CLOCKS_APART:  # a longer time: the clock was set back
        raise TooManyAttempts(limit.scope, left.total_seconds())


def _subject(kind: str, *parts: str) -> str:
    return _digest("\0".join((kind, *parts)))


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
