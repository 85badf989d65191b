"""Database connections of threads: each is closed when its thread ends.

Django keeps a connection for each thread and closes none at a thread's end. The connection then
stays open until the garbage collector finds it, which takes minutes in a web process: SQLite's
files stay open, PostgreSQL counts a session, and Python 3.13 and later warn of an "unclosed
database". Threads end in many places (asgiref makes one for each request, pools end with their
owner), so connections are closed here, for any thread, and not at each of those places.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

logger = logging.getLogger(__name__)


class _OwnConnections:
    """The connections that one thread has opened, by alias.

    Python drops the values of a ``threading.local`` on the ending thread itself, as its last step.
    That matters: Django refuses to close a connection of another thread.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self.opened: dict[str, BaseDatabaseWrapper] = {}

    def __del__(self) -> None:
        # At the interpreter's exit the process ends anyway, and modules may be gone already. A
        # forked child drops the values of the other threads too: their connections are the
        # parent's.
        if not sys.is_finalizing() and threading.get_ident() == self._thread:
            _close(self.opened.values())


_local = threading.local()


def close_at_thread_end() -> None:
    """Close each connection that is opened from now on when its thread ends."""
    connection_created.connect(_remember, dispatch_uid="llamactl.core.thread_connections")


def _remember(connection: BaseDatabaseWrapper, **_: object) -> None:
    own: _OwnConnections | None = getattr(_local, "own", None)
    if own is None:
        own = _local.own = _OwnConnections()
    own.opened[connection.alias] = connection


def _close(connections: Iterable[BaseDatabaseWrapper]) -> None:
    for connection in connections:
        try:
            connection.close()
        except Exception:
            logger.exception("the database connection of a thread that ended could not be closed")
