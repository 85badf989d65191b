"""How is work done that may hang for ever, without whoever waits for it hanging too?

A file on a network disk that is away, a program that never answers: neither can be interrupted. So
it is done by a thread that nobody has to wait for, not even the interpreter when it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

MOST_AT_ONCE = 16

T = TypeVar("T")

_places = threading.BoundedSemaphore(MOST_AT_ONCE)


class TooBusy(Exception):
    """As many threads as there may be are at work, or hang."""


def begin(work: Callable[[], T]) -> Future[T]:
    """Start ``work`` on a thread of its own. Raises TooBusy."""
    if not _places.acquire(blocking=False):
        raise TooBusy
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # whoever waits raises it
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            _places.release()

    threading.Thread(target=run, name="preflight", daemon=True).start()
    return future
