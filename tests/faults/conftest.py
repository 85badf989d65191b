from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.paths import FAKE_BACKEND

BACKEND = FAKE_BACKEND


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake backend as one executable."""
    program = tmp_path_factory.mktemp("program") / "fake-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{BACKEND}" "$@"\n')
    program.chmod(0o755)
    return program
