"""A backend is added by one folder and one entry in the registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CHECKS = Path(__file__).with_name("checks.py")


@pytest.mark.timeout(120)
def test_a_registered_backend_needs_nothing_else() -> None:
    # URLs, choices and the config follow the registry as it is when Django loads, so the toy needs
    # a process of its own.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", str(CHECKS), "-p", "no:cacheprovider"),
            *("-p", "tests.instances.backends.toy.registered"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
