"""The live pages of one web process: reads each change once and tells all pages that show it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import orjson
from django.db import DatabaseError, close_old_connections
from django.utils import timezone

from llamactl.console.live.connection import Connection, Ending
from llamactl.console.live.problems import (
    Problem,
    html_for,
    process_problems,
    read_node_problems,
)
from llamactl.console.live.rows import FollowedRows
from llamactl.console.live.viewer import Viewer, digest_of, viewer_of
from llamactl.console.live.watched import WatchedInstances
from llamactl.core.change_feed import HEALTH, SESSIONS, ChangeFeed
from llamactl.core.repeated_warning import RepeatedWarning
from llamactl.models import Topic

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.05
"""Between two rounds: a burst of changes is read at once."""
LOG_SECONDS = 1.0
BEAT_SECONDS = 2.0
"""A page takes three times this long without a message for the silence of the web process."""
NODES_SECONDS = 5.0
CHECK_SECONDS = 30.0
PAGES_PER_SESSION = 32
PAGES = 512

T = TypeVar("T")


class LiveHub:
    """Open pages, and two tasks that run while there are any: the changes, and the beat."""

    def __init__(self, feed: ChangeFeed) -> None:
        self.feed = feed
        self.connections: set[Connection] = set()
        self.rows = FollowedRows()
        self.watched = WatchedInstances()
        self._problems: list[Problem] | None = None
        self._due = asyncio.Event()
        self._is_health_due = False
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = RepeatedWarning(logger, "live pages")
        # One thread, so one database connection.
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="live-pages")

    async def authenticate(self, session_key: str) -> Viewer | None:
        """Raises DatabaseError."""
        return await self._read(lambda: viewer_of(session_key)) if session_key else None

    def refusal_of(self, session_key: str) -> Ending | None:
        """Return why one more page of this session is refused, if it is."""
        of_session = sum(each.session_key == session_key for each in self.connections)
        if of_session >= PAGES_PER_SESSION or len(self.connections) >= PAGES:
            return Ending.TOO_MANY_PAGES
        return None

    async def join(self, connection: Connection) -> None:
        """Tell a new page the state of what it shows, and follow the changes for it."""
        if not self.connections:
            self._start()
        self.connections.add(connection)
        connection.put(_encoded(self._greeting(connection.viewer)))
        self.rows.want(connection)
        self.watched.want(connection)
        self._is_health_due = True
        self._due.set()

    async def leave(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.rows.drop(connection)
        self.watched.drop(connection)
        if not self.connections and self._tasks:
            tasks, self._tasks = self._tasks, []
            self._problems = None
            self.feed.leave(self._heard)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.feed.follow(self._heard)
        self._tasks = [
            asyncio.create_task(self._follow(), name="live-pages"),
            asyncio.create_task(self._beat(), name="live-beat"),
        ]

    def _greeting(self, viewer: Viewer) -> dict[str, object]:
        now = int(timezone.now().timestamp() * 1000)
        if self._problems is None:
            return {"now": now}
        return {
            "now": now,
            "problems": html_for(self._problems, may_see_nodes=viewer.may_see_nodes),
        }

    def _heard(self, topic: str, name: str) -> None:
        """Note a change, on any thread."""
        self._loop.call_soon_threadsafe(self._note, topic, name)

    def _note(self, topic: str, name: str) -> None:
        if topic == SESSIONS:
            for each in [one for one in self.connections if digest_of(one.session_key) == name]:
                each.end(Ending.LOGGED_OUT)
            return
        if topic == HEALTH:
            self._is_health_due = True
        else:
            is_named = topic == Topic.INSTANCES.value and name
            self.rows.note(name if is_named else None)
            self.watched.note(name if is_named else None)
        self._due.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._send(self.connections, {"beat": 1})

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        log_at = nodes_at = loop.time()
        check_at = loop.time() + CHECK_SECONDS
        while True:
            try:
                wake_at = min(nodes_at, check_at, log_at if self.watched.pages else check_at)
                async with asyncio.timeout_at(wake_at):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            now = loop.time()
            try:
                if now >= nodes_at or self._is_health_due:
                    nodes_at = now + NODES_SECONDS
                    await self._send_problems()
                await self._send_changes(with_logs=now >= log_at)
                if now >= log_at:
                    log_at = now + LOG_SECONDS
                if now >= check_at:
                    check_at = now + CHECK_SECONDS
                    await self._check_sessions()
                self._failures.succeeded()
            except DatabaseError as error:
                self._failures.failed("not read: %s", error)
                self._send_known_problems()
                await asyncio.sleep(1)
                self._due.set()
            except Exception:
                self._failures.failed("not read", exc_info=True)
                await asyncio.sleep(1)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _send_changes(self, *, with_logs: bool) -> None:
        for pages, message in await self.rows.changes(self._read):
            self._send(pages, message)
        for pages, message in await self.watched.changes(self._read, with_logs=with_logs):
            self._send(pages, message)

    async def _send_problems(self) -> None:
        """Read the nodes, and send what is wrong if that has changed."""
        self._is_health_due = False
        self.rows.note_held()
        self.watched.note_held()
        try:
            problems = await self._read(read_node_problems)
            await self.watched.note_used(self._read)
        except DatabaseError:
            self._send_known_problems()
            raise
        self._tell([*process_problems(self.feed), *problems])

    def _send_known_problems(self) -> None:
        """Send what this process knows without the database; nodes stay as last read."""
        of_nodes = [each for each in self._problems or () if each.node]
        self._tell([*process_problems(self.feed), *of_nodes])

    def _tell(self, problems: list[Problem]) -> None:
        if problems == self._problems:
            return
        self._problems = problems
        for may_see_nodes in (True, False):
            pages = [
                each for each in self.connections if each.viewer.may_see_nodes is may_see_nodes
            ]
            html = html_for(problems, may_see_nodes=may_see_nodes)
            self._send(pages, {"problems": html, "changed": 1})

    async def _check_sessions(self) -> None:
        """End the pages of sessions that are over or have lost a permission."""
        keys = Counter(each.session_key for each in self.connections)
        viewers = await self._read(lambda: {key: viewer_of(key) for key in keys})
        for each in tuple(self.connections):
            viewer = viewers.get(each.session_key, each.viewer)
            if viewer is None:
                each.end(Ending.LOGGED_OUT)
            elif not each.may_stay(viewer):
                each.end(Ending.NOT_PERMITTED)
            else:
                each.viewer = replace(viewer)

    def _send(self, pages: Iterable[Connection], message: dict[str, object]) -> None:
        pages = tuple(pages)
        if pages:
            text = _encoded(message)
            for each in pages:
                each.put(text)

    async def _read(self, function: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reading, _with_fresh_connection, function)


def _encoded(message: dict[str, object]) -> str:
    return orjson.dumps(message, option=orjson.OPT_NON_STR_KEYS).decode()


def _with_fresh_connection(function: Callable[[], T]) -> T:
    close_old_connections()
    return function()
