"""Recognition of keys imported from the Go llamactl, at their first use.

The Go program's Argon2id hashes can't be looked up: a key has to be compared with each hash, at
64 MiB and some 50 ms of processor time. So an unknown key is compared once, off the event loop, one
comparison at a time, at most half of the time, and at most five keys a second; wrong keys must not
load the machine.

Nor may wrong keys keep a right one out. Unknown keys queue, and no key is dropped for its age: in
turns the key that was sent most often (among equals the newest) and the oldest key come next. A
request waits for its key for a while, then gets 503 with ``Retry-After``; 401 only says that a key
was compared, and is wrong.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from keys.argon2id import has_go_shape, matches
from keys.secrets import digest
from proxy import cancel
from proxy.errors import KeyNotCompared
from proxy.table.live import LiveTable

logger = logging.getLogger(__name__)

KEY_SECONDS = 0.2
"""From the beginning of one key's comparisons to the beginning of the next key's."""
WAIT_SECONDS = 30.0
"""How long a request waits for its key."""
MAX_WAITING = 100
"""Requests that wait at the same time; each holds a connection without having a known key."""
MAX_QUEUED = 10_000
MAX_REMEMBERED = 10_000
"""Wrong keys, of which only the SHA-256 is kept."""
RETRY_SECONDS = 5.0


@dataclass(eq=False)
class _Queued:
    """A key in the queue."""

    key: str
    place: int
    outcome: asyncio.Future[bool]
    """Whether the key is right; cancelled if the key could not be compared."""
    times_sent: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        return self.times_sent, self.place


class ImportedKeys:
    """The queue of unknown keys in one web process, and the task that compares them."""

    def __init__(
        self,
        live: LiveTable,
        remember: Callable[[str, str], Awaitable[None]],
        request_refresh: Callable[[], Awaitable[None]],
        *,
        compare: Callable[[str, str], bool] = matches,
        key_seconds: float = KEY_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """``remember`` stores that a hash (first argument) is that of a key (second)."""
        self._live = live
        self._remember = remember
        self._request_refresh = request_refresh
        self._compare = compare
        self._key_seconds = key_seconds
        self._wait_seconds = wait_seconds
        self._places = itertools.count()
        self._queue: dict[bytes, _Queued] = {}
        self._wrong: dict[bytes, tuple[str, ...]] = {}
        """SHA-256 of a wrong key → the hashes that it was compared with, oldest first."""
        self._waiting = 0
        self._next_key_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2id")

    async def stop(self) -> None:
        if self._task is not None:
            await cancel.cancel_and_wait([self._task])
        self._thread.shutdown(wait=False)

    async def recognise(self, key: str) -> bool:
        """Return whether ``key`` is an imported key; then the table has its rule.

        Raises KeyNotCompared if the key's turn does not come in time.
        """
        if not self._live.table.imported_hashes or not has_go_shape(key):
            return False
        name = digest(key)
        if name not in self._queue and not self._hashes_left(name):
            return self._is_known(name)
        queued = self._enqueue(name, key)
        if self._waiting >= MAX_WAITING:
            raise KeyNotCompared(RETRY_SECONDS)
        self._waiting += 1
        try:
            await asyncio.wait((queued.outcome,), timeout=self._wait_seconds)
        finally:
            self._waiting -= 1
        if not queued.outcome.done() or queued.outcome.cancelled():
            raise KeyNotCompared(RETRY_SECONDS)
        return queued.outcome.result()

    def _enqueue(self, name: bytes, key: str) -> _Queued:
        queued = self._queue.get(name)
        if queued is None:
            if len(self._queue) >= MAX_QUEUED:
                self._drop_one()
            outcome = asyncio.get_running_loop().create_future()
            queued = self._queue[name] = _Queued(key, next(self._places), outcome)
        queued.times_sent += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._compare_all(), name="imported-keys")
        return queued

    def _drop_one(self) -> None:
        """Drop the oldest of the keys that were sent least often; sent again, it queues again."""
        self._queue.pop(min(self._queue, key=self._rank)).outcome.cancel()

    def _rank(self, name: bytes) -> tuple[int, int]:
        return self._queue[name].rank

    def _hashes_left(self, name: bytes) -> list[str]:
        """The hashes that the key was not compared with yet."""
        hashes, compared = self._live.table.imported_hashes, self._wrong.get(name, ())
        return [] if compared is hashes else [each for each in hashes if each not in compared]

    async def _compare_all(self) -> None:
        """Compare the queued keys one after the other, until the queue is empty."""
        for turn in itertools.count():
            if not self._queue:
                return
            is_oldest_due = turn % 2 == 1
            name = next(iter(self._queue)) if is_oldest_due else max(self._queue, key=self._rank)
            outcome = self._queue[name].outcome
            try:
                is_right = await self._is_right(name, self._queue[name].key)
            except Exception:
                # The next use of the key tries again.
                logger.exception("an imported key could not be compared or stored")
                outcome.cancel()
            else:
                if not outcome.done():
                    outcome.set_result(is_right)
            finally:
                self._queue.pop(name, None)

    async def _is_right(self, name: bytes, key: str) -> bool:
        loop = asyncio.get_running_loop()
        table_hashes = self._live.table.imported_hashes
        await asyncio.sleep(self._next_key_at - loop.time())
        self._next_key_at = loop.time() + self._key_seconds
        for argon2 in self._hashes_left(name):
            began = loop.time()
            if await loop.run_in_executor(self._thread, self._compare, argon2, key):
                await self._remember(argon2, key)
                await self._request_refresh()
                return True
            await asyncio.sleep(loop.time() - began)
        self._wrong.pop(name, None)
        self._wrong[name] = table_hashes
        if len(self._wrong) > MAX_REMEMBERED:
            del self._wrong[next(iter(self._wrong))]
        return self._is_known(name)

    def _is_known(self, name: bytes) -> bool:
        """Whether the table has the key: another web process may have recognised it meanwhile."""
        return name in self._live.table.keys
