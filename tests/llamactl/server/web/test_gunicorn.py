"""The gunicorn worker class: modules of the master process, and settings from the config."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llamactl.config import AppConfig
from llamactl.server.web.gunicorn_settings import gunicorn_settings
from tests.support.paths import ROOT

MODULES = """
import sys
from llamactl.server.web.gunicorn_worker import OWN_PACKAGES, WebWorker, forget_own_modules
loaded = lambda: [name for name in sys.modules if name.partition(".")[0] in OWN_PACKAGES]
assert not {"llamactl.settings", "llamactl.server.web.http", "proxy"} & set(loaded()), loaded()
forget_own_modules()
assert not loaded(), loaded()
"""


def test_the_master_process_loads_no_module_that_a_worker_uses() -> None:
    done = subprocess.run([sys.executable, "-c", MODULES], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("host", "bind"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_gunicorn_gets_address_and_number_of_processes_from_the_config(
    tmp_path: Path, host: str, bind: str
) -> None:
    server = {"host": host, "port": 8123, "web_processes": 3}
    config = AppConfig.model_validate({"data_dir": tmp_path, "server": server})
    settings = gunicorn_settings(config)
    assert (settings["bind"], settings["workers"]) == ([f"{bind}:8123", f"{bind}:8124"], 3)
