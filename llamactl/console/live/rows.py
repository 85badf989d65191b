"""The rows of the lists of instances that are open: read where changed, sent where shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from instances.admin.live_rows import LiveRow, read_rows
from llamactl.console.live.connection import Connection

Read = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function on the thread that reads the database."""
Message = tuple[list[Connection], dict[str, object]]
MAX_NAMES = 100
"""More changed rows than these are read with all the others."""


class FollowedRows:
    """All rows as they were last sent, while a list or the overview is open."""

    def __init__(self) -> None:
        self.pages: set[Connection] = set()
        self._new: set[Connection] = set()
        self._rows: dict[int, LiveRow] = {}
        self._names: set[str] = set()
        self._is_all = False

    def want(self, page: Connection) -> None:
        if page.topics.is_overview:
            self.pages.add(page)
        elif page.topics.rows is not None and page.viewer.may_see_instances:
            self._is_all = self._is_all or not self._has_lists()
            self.pages.add(page)
            self._new.add(page)

    def drop(self, page: Connection) -> None:
        self.pages.discard(page)
        self._new.discard(page)
        if not self._has_lists():
            self._rows, self._names, self._is_all = {}, set(), False

    def note(self, name: str | None) -> None:
        """Note a changed row; ``None`` for unknown rows."""
        if name is None or len(self._names) >= MAX_NAMES:
            self._is_all = True
        else:
            self._names.add(name)

    def note_held(self) -> None:
        """Note the rows that tell the seconds of a hold."""
        self._names |= {row.name for row in self._rows.values() if row.is_held}

    async def changes(self, read: Read) -> list[Message]:
        """Read what was noted. Raises DatabaseError, after which it is still noted."""
        if not (self._is_all or self._names or self._new):
            return []
        names, self._names = self._names, set()
        is_all, self._is_all = self._is_all, False
        new, self._new = self._new, set()
        changed: dict[int, LiveRow] = {}
        before, removed = self._rows, set()
        if self._has_lists() and (is_all or names):
            try:
                rows = await read(lambda: read_rows(None if is_all else names))
            except BaseException:
                self._names |= names
                self._is_all = self._is_all or is_all
                self._new |= new & self.pages
                raise
            found = {row.pk: row for row in rows}
            known = before if is_all else {k: v for k, v in before.items() if v.name in names}
            removed = known.keys() - found.keys()
            changed = {pk: row for pk, row in found.items() if before.get(pk) != row}
            self._rows = {k: v for k, v in before.items() if k not in removed} | found
        messages = [self._first(page) for page in new]
        old = [page for page in self.pages if page not in new]
        if is_all or names:
            messages.append(([page for page in old if page.topics.is_overview], {"changed": 1}))
        if changed or removed:
            message: dict[str, object] = {
                "rows": _documents(changed.values()),
                "added": sorted(changed.keys() - before.keys()),
                "removed": sorted(removed),
            }
            messages.append(([page for page in old if not page.topics.is_overview], message))
        return messages

    def _first(self, page: Connection) -> Message:
        """Return the rows that the page shows, and the ids of all."""
        shown = page.topics.rows or frozenset()
        rows = [row for pk, row in self._rows.items() if pk in shown]
        return [page], {"rows": _documents(rows), "ids": sorted(self._rows)}

    def _has_lists(self) -> bool:
        return any(not page.topics.is_overview for page in self.pages)


def _documents(rows: Iterable[LiveRow]) -> dict[str, object]:
    return {str(row.pk): row.to_document() for row in rows}
