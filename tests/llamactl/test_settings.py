"""Modules that a process of llamactl loads with its settings."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

LOADED = """
import sys, django
django.setup()
import llamactl.urls
from django.db import connection
names = [name for name in sys.modules if name.startswith("psycopg") and sys.modules[name]]
print(connection.vendor, bool(names))
"""


@pytest.mark.parametrize(
    ("url", "loaded"), [("", "sqlite False"), ("postgres://u:p@127.0.0.1/d", "postgresql True")]
)
def test_psycopg_is_loaded_for_postgresql_alone(url: str, loaded: str) -> None:
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "llamactl.settings"}
    if url:
        environment["LLAMACTL_DATABASE_URL"] = url
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"{loaded}\n", done.stderr
