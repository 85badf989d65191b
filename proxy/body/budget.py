"""Limit on the bodies that a web process holds for all requests together.

One body may have 64 MiB, and a request holds it until its response has ended, also while it waits
for its instance: 100 of them would take 6.4 GB.
"""

from __future__ import annotations

from collections.abc import Callable

from llamactl.core.errors import LlamactlError

LARGEST_BODIES = 16
"""The limit, in bodies of the largest size. Alone, a key holds half of it: 100 images of 5 MB."""

Hold = Callable[[int], None]
"""Holds this many bytes in all for a request from now on. Raises TooManyBodies."""


class TooManyBodies(LlamactlError):
    """A request body that did not fit beside those of other requests."""

    code = "too_many_uploads"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "llamactl holds too many large request bodies at once; send this one again, or send"
            " fewer at the same time",
            retry_after=5,
        )


class BodyBudget:
    """The bodies of a web process that did not come in one piece.

    A key may hold as many bytes as are free. So one key gets half of the budget, and two keys get a
    third each: whatever the others hold, the next key still finds room.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free_bytes = max_bytes
        self._by_key: dict[int | None, int] = {}
        self._held: dict[object, tuple[int | None, int]] = {}

    def hold(self, request: object, key_id: int | None, size: int) -> None:
        """Hold ``size`` bytes in all for a request. Raises TooManyBodies."""
        if not size and request not in self._held:
            return
        before = self._held.get(request, (key_id, 0))[1]
        more = size - before
        of_key = self._by_key.get(key_id, 0) + more
        if more > 0 and of_key > self._free_bytes - more:
            raise TooManyBodies
        self._free_bytes -= more
        self._by_key[key_id] = of_key
        self._held[request] = (key_id, size)

    def release(self, request: object) -> None:
        """Hold nothing more for a request, which may have held nothing."""
        key_id, size = self._held.pop(request, (None, 0))
        self._free_bytes += size
        if key_id in self._by_key:
            self._by_key[key_id] -= size
            if not self._by_key[key_id]:
                del self._by_key[key_id]


def unbounded(size: int) -> None:
    """Hold any number of bytes."""
