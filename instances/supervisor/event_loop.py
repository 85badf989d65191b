"""The event loop of the supervisor's thread: exits of processes, and calls of other threads."""

from __future__ import annotations

import logging
import math
import queue
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from instances.supervisor.process.pidfd import Process
from instances.supervisor.wakeup import Wakeup

logger = logging.getLogger(__name__)

OFF_THREADS = 8

T = TypeVar("T")


class EventLoop:
    """``wait`` and ``watch`` are for the supervisor's thread, ``post`` for every thread."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._wakeup = Wakeup()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._off_threads = ThreadPoolExecutor(OFF_THREADS, thread_name_prefix="supervisor")
        self._exits: dict[int, Callable[[], None]] = {}
        self._poll = select.poll()
        self._poll.register(self._wakeup, select.POLLIN)

    def post(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the supervisor's thread, soon."""
        self._calls.put(call)
        self._wakeup.wake()

    def watch(self, process: Process, on_exit: Callable[[], None]) -> None:
        """Run ``on_exit`` once, when the process has exited."""
        self._exits[process.fileno()] = on_exit
        self._poll.register(process, select.POLLIN)

    def off_thread(self, work: Callable[[], T], then: Callable[[T], None], *, on_error: T) -> None:
        """See ``context.OffThread``."""

        def run() -> None:
            try:
                result = work()
            except Exception:
                logger.exception("a call off the supervisor's thread failed")
                result = on_error
            self.post(lambda: then(result))

        self._off_threads.submit(run)

    def wait(self, seconds: float) -> None:
        """Sleep until an event, at most this long; then run the callbacks of the events."""
        for descriptor, _ in self._poll.poll(math.ceil(max(0.0, seconds) * 1000)):
            if descriptor == self._wakeup.fileno():
                self._wakeup.clear()
            else:
                self._poll.unregister(descriptor)
                self.call(self._exits.pop(descriptor))
        while not self._calls.empty():
            self.call(self._calls.get())

    def call(self, call: Callable[[], None]) -> None:
        """Call, and log an error."""
        try:
            call()
        except Exception:
            logger.exception("a call failed", extra={"node": self._node})

    def end_off_threads(self) -> None:
        """Wait for the calls off the thread, whose results are not taken any more."""
        self._off_threads.shutdown()

    def close(self) -> None:
        """Close the descriptors; ``post`` still may be called, without effect."""
        self._wakeup.close()
