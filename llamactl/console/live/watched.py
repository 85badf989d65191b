"""The instances whose own pages are open: read where changed, logs once a second."""

from __future__ import annotations

from functools import partial
from typing import Any

from instances.admin.live_parts import LOG, LiveParts, read_last_used, read_log, read_parts
from llamactl.console.live.connection import Connection
from llamactl.console.live.rows import Message, Read


class WatchedInstances:
    """The parts of each open page as they were last sent."""

    def __init__(self) -> None:
        self.pages: dict[int, set[Connection]] = {}
        self._sent: dict[int, LiveParts] = {}
        self._due: set[int] = set()
        self._new: set[Connection] = set()

    def want(self, page: Connection) -> None:
        pk = page.topics.instance
        if pk is not None and page.viewer.may_see_instances:
            self.pages.setdefault(pk, set()).add(page)
            self._new.add(page)
            self._due.add(pk)

    def drop(self, page: Connection) -> None:
        pk = page.topics.instance
        self._new.discard(page)
        if pk is not None and pk in self.pages:
            self.pages[pk].discard(page)
            if not self.pages[pk]:
                del self.pages[pk]
                self._sent.pop(pk, None)
                self._due.discard(pk)

    def note(self, name: str | None) -> None:
        """Note a changed instance; ``None`` for unknown ones."""
        for pk in self.pages:
            sent = self._sent.get(pk)
            if name is None or sent is None or sent.instance.name == name:
                self._due.add(pk)

    def note_held(self) -> None:
        """Note the instances that tell the seconds of a hold."""
        self._due |= {pk for pk, sent in self._sent.items() if sent.is_held}

    async def note_used(self, read: Read) -> None:
        """Note the instances that were used: no event tells of that."""
        if self._sent:
            used = await read(partial(read_last_used, list(self._sent)))
            for pk, sent in self._sent.items():
                if used.get(pk, sent.instance.last_used_at) != sent.instance.last_used_at:
                    self._due.add(pk)

    async def changes(self, read: Read, *, with_logs: bool) -> list[Message]:
        """Read what was noted. Raises DatabaseError, after which it is still noted."""
        messages: list[Message] = []
        for pk in sorted(self._due):
            fresh: LiveParts | None = await read(partial(read_parts, pk))
            self._due.discard(pk)
            pages = self.pages.get(pk, set())
            if not pages:
                continue
            if fresh is None:
                messages.append((list(pages), {"gone": 1}))
                continue
            messages += self._differences(pk, fresh, pages)
            self._sent[pk] = fresh
        if with_logs:
            for pk, sent in tuple(self._sent.items()):
                log = await read(partial(read_log, sent.instance))
                if pk in self._sent and self._sent[pk] is sent and log != sent.parts[LOG]:
                    fresh = LiveParts(sent.instance, {**sent.parts, LOG: log}, sent.is_held)
                    messages += self._differences(pk, fresh, self.pages[pk])
                    self._sent[pk] = fresh
        return messages

    def _differences(self, pk: int, fresh: LiveParts, pages: set[Connection]) -> list[Message]:
        """Return all parts for a new page, and the changed parts for the others."""
        sent = self._sent.get(pk)
        before = {} if sent is None else sent.parts
        changed = {name: html for name, html in fresh.parts.items() if before.get(name) != html}
        new, self._new = self._new & pages, self._new - pages
        groups: dict[tuple[bool, bool], list[Connection]] = {}
        for page in pages:
            groups.setdefault((page in new, page.viewer.may_see_logs), []).append(page)
        messages = []
        for (is_new, may_see_logs), members in groups.items():
            parts: dict[str, Any] = dict(fresh.parts if is_new else changed)
            if not may_see_logs:
                parts.pop(LOG, None)
            if parts:
                status = fresh.instance.reported_status.value
                messages.append((members, {"parts": parts, "status": status, "instance": pk}))
        return messages
