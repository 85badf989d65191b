"""One open page: what it follows, and its bounded queue of messages."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qs

from llamactl.console.live.viewer import Viewer

QUEUE_LENGTH = 64
"""Messages that wait for a slow page; a page reads one in microseconds."""
MAX_ROWS = 500
MAX_QUERY_LENGTH = 20 * MAX_ROWS


class Ending(Enum):
    """Close codes, and their reasons, which the page's stream.js reads."""

    LOGGED_OUT = (4401, "logged_out")
    NOT_PERMITTED = (4403, "not_permitted")
    TOO_SLOW = (4408, "too_slow")
    TOO_MANY_MESSAGES = (4400, "pages_send_nothing")
    TOO_MANY_PAGES = (4429, "too_many_pages")
    DATABASE_AWAY = (4503, "database_away")


@dataclass(frozen=True)
class Topics:
    """What a page shows, from the query of its stream."""

    rows: frozenset[int] | None = None
    """The rows of its list of instances; ``None`` for a page without the list."""
    instance: int | None = None
    """The instance whose page it is."""
    is_overview: bool = False

    @property
    def is_of_instances(self) -> bool:
        return self.rows is not None or self.instance is not None

    @classmethod
    def from_query(cls, query: str) -> Topics:
        """Read ``rows=1.2.3``, ``instance=4`` or ``overview=1``; other text is left out."""
        try:
            fields = parse_qs(query[:MAX_QUERY_LENGTH], keep_blank_values=True, max_num_fields=8)
        except ValueError:
            return cls()
        rows = fields.get("rows")
        ids = [_id(text) for text in fields.get("instance", [])]
        return cls(
            rows=None if rows is None else frozenset(_ids(rows[0])),
            instance=ids[0] if ids else None,
            is_overview="overview" in fields,
        )


def _id(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _ids(text: str) -> list[int]:
    found = map(_id, text.split(".", MAX_ROWS)[:MAX_ROWS])
    return [each for each in found if each is not None]


class Connection:
    """The stream of one page. The hub writes, the consumer reads."""

    def __init__(self, session_key: str, viewer: Viewer, topics: Topics) -> None:
        self.session_key = session_key
        self.viewer = viewer
        self.topics = topics
        self.ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_LENGTH)

    def put(self, message: str) -> None:
        """Queue a message. A page that does not read is ended, and its queue dropped."""
        if self.ending.done():
            return
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self.end(Ending.TOO_SLOW)

    def end(self, ending: Ending) -> None:
        if not self.ending.done():
            self.ending.set_result(ending)

    async def next(self) -> str:
        return await self._queue.get()

    def may_stay(self, viewer: Viewer) -> bool:
        return viewer.may_see_instances or not self.topics.is_of_instances
