"""Parent-death signal: a child process ends with its parent, even after ``kill -9``."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def end_with_parent() -> Callable[[], None] | None:
    """Return a ``preexec_fn`` that has the kernel send SIGTERM to the child at its parent's death.

    Returns None outside Linux and outside the main thread: the kernel takes the starting thread
    for the parent, and a thread may end early.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def request_signal() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            # The parent died before the signal was requested.
            os._exit(1)

    return request_signal
