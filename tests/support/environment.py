"""A pytest plugin that gives each test process a llamactl of its own, before settings load.

Loaded by ``-p tests.support.environment``: Django's settings are built from the environment on
import, which is earlier than any conftest.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

MANAGEMENT_KEY = "llamactl-mgmt-for-tests"

for _name in [name for name in os.environ if name.startswith("LLAMACTL_")]:
    del os.environ[_name]

DATA_DIR = Path(tempfile.mkdtemp(prefix="llamactl-test-"))
atexit.register(shutil.rmtree, DATA_DIR, ignore_errors=True)
(DATA_DIR / "empty.yaml").write_text("{}\n")

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_first_port = 18000 + 400 * _worker

os.environ.update(
    LLAMACTL_DATA_DIRECTORY=str(DATA_DIR),
    LLAMACTL_CONFIG_PATH=str(DATA_DIR / "empty.yaml"),
    LLAMACTL_MANAGEMENT_KEYS=MANAGEMENT_KEY,
    LLAMACTL_INSTANCE_PORT_RANGE=f"{_first_port}-{_first_port + 399}",
    LLAMACTL_DRAIN_TIMEOUT="5",
    LLAMACTL_STOP_TIMEOUT="2",
)
