"""In which order is llamactl examined, and what can be looked at when something is missing?

Nothing is changed, and nothing is made: before the first run there is nothing to find afterwards.
What needs Django's settings, which make the data directory's secrets, waits until those are there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import django

from llamactl.config import AppConfig
from llamactl.doctor import backends, host, ports, services, storage
from llamactl.doctor.findings import Diagnosis, guarded, note, ok, problem, warning


def examine(config: AppConfig) -> Iterator[Diagnosis]:
    """Every finding, as it is made."""
    yield from _configuration(config)
    directory = storage.look(config.data_dir)
    yield from storage.judge(directory)
    has_run_before = directory.is_usable and (config.data_dir / "secret_key").is_file()
    inner: Callable[[], Iterator[Diagnosis]] | None = None
    if has_run_before:
        try:
            django.setup()
            from llamactl.doctor import inside

            inner = inside.Examination(config).findings
        except SystemExit:  # the settings have said why
            yield problem("settings", "Django's settings can't be loaded", "see the line above")
    web = services.look_at_web(config)
    yield from services.judge_web(web, has_run_before=has_run_before)
    if inner is not None:
        yield from inner()
    else:
        yield from _outside(config)
    yield from guarded("ports", lambda: ports.judge(ports.look(config)))
    yield from guarded("GPU", lambda: host.judge_gpus(host.look_at_gpus()))


def _outside(config: AppConfig) -> Iterator[Diagnosis]:
    """What can be said without a database."""
    yield note("database", "not looked at; llamactl has not run here yet, or can't")
    yield from guarded(
        "backends",
        lambda: (each for facts in backends.look(config, set()) for each in backends.judge(facts)),
    )
    yield from host.judge_descriptors(host.look_at_descriptors({}))
    yield from host.judge_clock(time.time(), {})


def _configuration(config: AppConfig) -> Iterator[Diagnosis]:
    for line in config.config_warnings:
        yield warning("config", line, "manage.py check_config shows where each value comes from")
    if not config.config_warnings:
        yield ok("config", "nothing to object to")
