"""Discovery of what clients want to know of a model, off the way of all requests.

A backend can be asked only while it runs, so it is asked once after each start, and its answer is
stored. For an instance that has never run the header of its GGUF file is read. Both happen at
changes of the table; a poll of ``/v1/models`` costs a backend nothing and wakes none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from django.db import DatabaseError

from instances.gguf_metadata import context_length
from instances.model_info import facts_of
from proxy import cancel
from proxy.routes.backend_json import get_json
from proxy.table.live import LiveTable
from proxy.table.table import Target
from proxy.upstream import Upstream

logger = logging.getLogger(__name__)

Remember = Callable[[int, int, Mapping[str, object]], Awaitable[None]]
RETRY_SECONDS = 2.0
MAX_TRIES = 3


class ModelDiscovery:
    """Two tasks: one asks backends, one reads files, perhaps of a disk that hangs."""

    def __init__(self, live: LiveTable, upstream: Upstream, remember: Remember) -> None:
        """``remember``: stores the facts of an instance's generation."""
        self._live = live
        self._upstream = upstream
        self._remember = remember
        self._asked: dict[int, int] = {}
        """Instance → the generation that was asked last."""
        self._files: dict[str, _ReadFile] = {}
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gguf")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._at_changes(self.ask_all), name="model-facts"),
            asyncio.create_task(self._at_changes(self.read_all), name="model-files"),
        ]

    async def stop(self) -> None:
        await cancel.cancel_and_wait(self._tasks)
        self._reading.shutdown(wait=False, cancel_futures=True)

    def context_length(self, target: Target) -> int | None:
        """The length of a request's context, of the best source there is."""
        if target.info.context_length is not None:
            return target.info.context_length
        file = self._files.get(target.model_file)
        return None if file is None else file.context_length

    async def ask_all(self) -> None:
        """Ask the backends that became ready, and forget instances that are gone."""
        targets = {target.id: target for target in self._live.table.targets.values()}
        self._asked = {pk: asked for pk, asked in self._asked.items() if pk in targets}
        due = [target for target in targets.values() if self._is_due(target)]
        self._asked.update((target.id, target.generation) for target in due)
        await asyncio.gather(*map(self._ask, due))

    def _is_due(self, target: Target) -> bool:
        # A router has many models, and tells of each in its own list.
        is_settled = target.is_ready and target.generation == target.observed_generation
        is_one = target.served_model is not None
        return is_settled and is_one and self._asked.get(target.id) != target.generation

    async def _ask(self, target: Target) -> None:
        for _ in range(MAX_TRIES):
            models = await get_json(target, self._upstream, "/v1/models")
            props = None
            if target.is_llama_server:
                props = await get_json(target, self._upstream, "/props")
            if models is not None or props is not None:
                try:
                    await self._remember(target.id, target.generation, facts_of(models, props))
                    return
                except DatabaseError as error:
                    logger.warning("facts of the model not stored: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    async def read_all(self) -> None:
        """Read the files of which nothing better is known; a file that was replaced, too."""
        targets = self._live.table.targets.values()
        files = {each.model_file for each in targets if each.info.context_length is None} - {""}
        self._files = {file: self._files.get(file, _UNREAD) for file in files}
        loop = asyncio.get_running_loop()
        for file, before in list(self._files.items()):
            self._files[file] = await loop.run_in_executor(self._reading, _read, file, before)

    async def _at_changes(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            table = self._live.table
            try:
                await work()
            except Exception:
                logger.exception("discovery of models failed")
            if self._live.table is table:
                await self._live.changed()


class _ReadFile(NamedTuple):
    """A file as it was read last."""

    stamp: tuple[int, int]
    """Time of its change and size."""
    context_length: int | None


_UNREAD = _ReadFile((0, 0), None)


def _read(file: str, before: _ReadFile) -> _ReadFile:
    """Read the file, unless it is as before."""
    path = Path(file)
    try:
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp == before.stamp or not S_ISREG(found.st_mode):
            return before
        return _ReadFile(stamp, context_length(path))
    except OSError:
        return _UNREAD
