"""Comparison of a password under all limits: the one way for every form that asks for one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from django.http import HttpRequest
from django.utils import timezone

from llamactl.admin.login import limits
from llamactl.admin.login.addresses import client_network
from llamactl.admin.login.hash_slots import slot_for

logger = logging.getLogger(__name__)

T = TypeVar("T")
MAX_LOGGED = 60


def check_password_of(
    request: HttpRequest, username: str, compare: Callable[[], T | None]
) -> T | None:
    """Return what ``compare`` returns; ``None`` or ``False`` is a wrong password.

    1. Refuse an attempt beyond a limit before it waits for anything.
    2. Wait for the slot in which a password may be hashed.
    3. Count the attempt, compare, and take a successful attempt back.

    Raises TooManyAttempts, LoginsBusy.
    """
    of_attempt = limits.limits_of(request, username)
    limits.refuse_beyond(of_attempt, timezone.now())
    with slot_for(is_known=limits.is_known(of_attempt)).taken():
        used_up = limits.count(of_attempt, timezone.now())
        result = compare()
    if result:
        limits.forgive(of_attempt)
        return result
    origin = _origin(request, username)
    logger.warning("wrong password: %s", origin)
    for limit in used_up:
        logger.warning("no more logins %s for a while: %s", limit.scope, origin)
    return result


def _origin(request: HttpRequest, username: str) -> str:
    """Return account and address for the log, on one line of bounded length."""
    short = username if len(username) <= MAX_LOGGED else f"{username[:MAX_LOGGED]}…"
    return f"account {short!a}, address {client_network(request)}"
