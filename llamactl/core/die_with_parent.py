"""How does a child come to end with its parent, even one that is killed by ``kill -9``?"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def end_with_parent() -> Callable[[], None] | None:
    """A ``preexec_fn`` that has the kernel send SIGTERM to the child once its parent is gone.

    None where there is no such thing: outside Linux, and in another than the main thread. The
    kernel takes the thread that started the child for its parent, and a thread may end early.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def ask_for_sigterm() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            # The parent was killed before we could ask for the signal.
            os._exit(1)

    return ask_for_sigterm
