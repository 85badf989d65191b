"""A pytest plugin that gives each test process a llamactl of its own, before settings load.

Loaded by ``-p tests.support.environment``: Django's settings are built from the environment on
import, which is earlier than any conftest.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

MANAGEMENT_KEY = "llamactl-mgmt-for-tests"

for _name in [name for name in os.environ if name.startswith("LLAMACTL_")]:
    del os.environ[_name]

# With this variable, which container images set, each worker of pytest-xdist and each program of
# llamactl would compile all modules again: 10 s of CPU for a worker, 1 s for a stack.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

DATA_DIR = Path(tempfile.mkdtemp(prefix="llamactl-test-"))
atexit.register(shutil.rmtree, DATA_DIR, ignore_errors=True)
(DATA_DIR / "empty.yaml").write_text("{}\n")


BLOCK_SIZE = 600
TAKEN_BLOCK = 18000
"""The block with the ports that tests of the import write out: no test process gets it."""


def _claim_ports() -> tuple[socket.socket, range]:
    """A block of ports that no other test process of this machine uses, and its claim.

    The claim is an abstract socket: the kernel drops it with the process, so several test runs
    fit beside each other and nothing is left behind. The blocks end below the ephemeral ports.
    """
    for first in range(12000, 32100, BLOCK_SIZE):
        claim = socket.socket(socket.AF_UNIX)
        try:
            if first != TAKEN_BLOCK:
                claim.bind(f"\0llamactl-test-ports-{first}")
                return claim, range(first, first + BLOCK_SIZE)
        except OSError:
            pass
        claim.close()
    raise RuntimeError("other test processes hold all blocks of ports from 12000 to 32599")


_claim, PORTS = _claim_ports()
atexit.register(_claim.close)
UNIT_PORTS, STACK_PORTS, WEB_PORTS = PORTS[:250], PORTS[250:500], PORTS[500:]

os.environ.update(
    LLAMACTL_DATA_DIRECTORY=str(DATA_DIR),
    LLAMACTL_CONFIG_PATH=str(DATA_DIR / "empty.yaml"),
    LLAMACTL_MANAGEMENT_KEYS=MANAGEMENT_KEY,
    LLAMACTL_INSTANCE_PORT_RANGE=f"{UNIT_PORTS[0]}-{UNIT_PORTS[-1]}",
    LLAMACTL_DRAIN_TIMEOUT="5",
    LLAMACTL_STOP_TIMEOUT="2",
)
