"""Django's user accounts, with limits on the comparison of passwords."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.http import HttpRequest

from llamactl.admin.login.check import check_password_of


class LimitedBackend(ModelBackend):
    """The one authentication backend: every login of a request goes through its limits.

    A call without a request is a command of the operator, and has no limit.
    """

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        """Return the user of a right password. Raises TooManyAttempts, LoginsBusy."""
        compare = super().authenticate
        if request is None or username is None or password is None:
            return compare(request, username, password, **kwargs)
        return check_password_of(
            request, username, lambda: compare(request, username, password, **kwargs)
        )

    async def aauthenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        """Authenticate in a thread: neither a hash nor the database may hold up the event loop."""
        return await sync_to_async(self.authenticate)(request, username, password, **kwargs)
