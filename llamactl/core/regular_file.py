"""Opening of a regular file, without waiting where another kind of file is in its place."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def open_regular(path: Path, flags: int, *, may_be_device: bool = False) -> int:
    """Open a file, mode 0600 when it is new. Raises OSError, also for a directory, FIFO or socket.

    The opening of a FIFO waits for its other end, on the supervisor's loop for one.
    ``may_be_device``: an operator may link a log to ``/dev/null``.
    """
    flags |= os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a FIFO without a reader, or a socket
            raise _no_file(path) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not (may_be_device and stat.S_ISCHR(mode)):
        os.close(descriptor)
        raise _no_file(path)
    os.set_blocking(descriptor, True)
    return descriptor


def _no_file(path: Path) -> OSError:
    return OSError(errno.EINVAL, "it is no file", str(path))
