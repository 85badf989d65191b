"""Order of the checks, and the checks that are possible without a database.

The doctor changes nothing and creates nothing, so the data directory is still missing after a check
before the first run. Django's settings create the secrets of the data directory; checks that need
the settings therefore run only if these secrets exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import django

from llamactl.config import AppConfig
from llamactl.config.database_file import go_file
from llamactl.config.places import place_warnings, unusable_places
from llamactl.doctor import backends, host, ports, services, storage
from llamactl.doctor.diagnosis import Diagnosis, guarded, note, ok, problem, warning


def run_checks(config: AppConfig) -> Iterator[Diagnosis]:
    """Run all checks; yields each diagnosis at once."""
    yield from _configuration(config)
    directory = storage.collect(config.data_dir)
    yield from storage.diagnose(directory)
    places = list(unusable_places(config))
    is_there = directory.exists and directory.is_directory and directory.is_usable
    yield from storage.diagnose_places(places, place_warnings(config) if is_there else ())
    has_run_before = directory.is_usable and (config.data_dir / "secret_key").is_file()
    runtime: Callable[[], Iterator[Diagnosis]] | None = None
    if has_run_before and not places:
        try:
            django.setup()
            from llamactl.doctor import runtime_checks  # imports models

            runtime = runtime_checks.RuntimeChecks(config).run
        except SystemExit:  # the settings have printed the reason
            yield problem("settings", "Django's settings can't be loaded", "see the line above")
    web = services.collect_web(config)
    yield from services.diagnose_web(web, has_run_before=has_run_before)
    if runtime is not None:
        yield from runtime()
    else:
        yield from _checks_without_database(config)
    yield from guarded("ports", lambda: ports.diagnose(ports.collect(config)))
    yield from guarded("GPU", lambda: host.diagnose_gpus(host.collect_gpus()))


def _checks_without_database(config: AppConfig) -> Iterator[Diagnosis]:
    yield note("database", "not checked: llamactl has not run here yet, or can't start")
    if config.database.url is None and (go := go_file(config.database.path)) is not None:
        yield note(
            "database",
            f"{go} is a database of the Go llamactl",
            "start llamactl, then 'manage.py import_llamactl' imports its instances and keys",
        )
    yield from guarded(
        "backends",
        lambda: (
            each for facts in backends.collect(config, set()) for each in backends.diagnose(facts)
        ),
    )
    yield from host.diagnose_descriptors(host.collect_descriptors({}))
    yield from host.diagnose_clock(time.time(), {})


def _configuration(config: AppConfig) -> Iterator[Diagnosis]:
    for line in config.config_warnings:
        yield warning("config", line, "manage.py check_config shows where each value comes from")
    if not config.config_warnings:
        yield ok("config", "no warnings")
