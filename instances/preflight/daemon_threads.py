"""Daemon threads, at most 16, for work that may hang for ever.

A read from a network disk that is away, or the wait for a program, can't be interrupted. In a
daemon thread it delays nothing: callers wait with a timeout, and the interpreter's exit not at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

MAX_THREADS = 16

T = TypeVar("T")

_free = threading.BoundedSemaphore(MAX_THREADS)


class TooManyThreads(Exception):
    """All threads are busy, or hang."""


def start(work: Callable[[], T]) -> Future[T]:
    """Start ``work`` in a thread of its own. Raises TooManyThreads."""
    if not _free.acquire(blocking=False):
        raise TooManyThreads
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # raised again by ``future.result()``
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            _free.release()

    threading.Thread(target=run, name="preflight", daemon=True).start()
    return future
