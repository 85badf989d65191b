"""Session of an admin, made in the database of a running llamactl."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.stack import Stack

CSRF_TOKEN = "a" * 32

_PROGRAM = """
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
user, _ = get_user_model().objects.get_or_create(
    username="hostile", defaults={"is_staff": True, "is_superuser": True}
)
session = SessionStore()
session["_auth_user_id"] = str(user.pk)
session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
session["_auth_user_hash"] = user.get_session_auth_hash()
from django.conf import settings
session["_auth_user_backend"] = settings.AUTHENTICATION_BACKENDS[0]
session.create()
print(f"{settings.SESSION_COOKIE_NAME}={session.session_key}; {settings.CSRF_COOKIE_NAME}=%s")
"""


def session_cookies(stack: Stack, repository: Path) -> str:
    """The cookies of a superuser. Raises CalledProcessError."""
    argv = [sys.executable, str(repository / "manage.py"), "shell", "-c", _PROGRAM % CSRF_TOKEN]
    made = subprocess.run(
        argv, env=dict(stack.environment), cwd=stack.directory, check=True, stdout=subprocess.PIPE
    )
    return made.stdout.decode().strip().splitlines()[-1]
