"""``python -m bench.usage``: writes and queries of usage, on a SQLite database of its own.

Writes: the batches of one web process at 50 requests a second, each with its record, for 24 hours
of simulated time, one after the other. Queries: the first page and the sums of a key, over 31 and
400 days of 50 keys and 50 instances.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import django

from bench.report import table

REPOSITORY = Path(__file__).resolve().parent.parent
KEYS = INSTANCES = 50
REQUESTS_PER_SECOND = 50
BATCH_SECONDS = 2
KEPT_RECORDS = 10_000
BEGIN = 1_767_225_600
"""The first second of 2026 in UTC."""
DAY_SECONDS = 86_400


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hours", type=float, default=24.0, help="of simulated requests (24)")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="llamactl-bench-") as directory:
        os.environ |= {
            "LLAMACTL_DATA_DIRECTORY": directory,
            "DJANGO_SETTINGS_MODULE": "llamactl.settings",
        }
        manage = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(manage, cwd=REPOSITORY, check=True)
        django.setup()
        rows = [*written(given.hours, Path(directory)), *queried()]
    sys.stdout.write(table([["measurement", "value"], *rows]) + "\n")


def written(hours: float, directory: Path) -> list[list[str]]:
    """Write the batches of so many hours; the figures."""
    from keys.usage.recorder import Place, Sums
    from keys.usage.request_row import RequestRow
    from keys.usage.writing import write

    chosen = random.Random(1)
    seconds: list[float] = []
    written_rows = 0
    for number in range(1, int(hours * 3600 / BATCH_SECONDS) + 1):
        now = BEGIN + number * BATCH_SECONDS
        sums: dict[Place, Sums] = {}
        records = []
        for _ in range(REQUESTS_PER_SECOND * BATCH_SECONDS):
            key, instance = chosen.randint(1, KEYS), f"model-{chosen.randint(1, INSTANCES)}"
            added = sums.setdefault((now // 3600 * 3600, key, instance), Sums())
            added.requests += 1
            added.prompt_tokens += 900
            added.completion_tokens += 250
            records.append(
                RequestRow(
                    request_id=f"{chosen.getrandbits(128):032x}",
                    client_request_id="",
                    ended_at=now,
                    key_id=key,
                    instance=instance,
                    path="/v1/chat/completions",
                    status=200,
                    outcome="answered",
                    prompt_tokens=900,
                    cached_tokens=0,
                    completion_tokens=250,
                    drafted_tokens=0,
                    accepted_tokens=0,
                    is_estimated=False,
                    queue_seconds=0.01,
                    load_seconds=0.0,
                    first_byte_seconds=0.2,
                    total_seconds=3.5,
                    request_bytes=4000,
                    response_bytes=70_000,
                )
            )
        began = perf_counter()
        write("web", number, sums, records, unix_now=now, kept_records=KEPT_RECORDS)
        seconds.append(perf_counter() - began)
        written_rows += 2 * len(sums) + len(records) + 1
    simulated = len(seconds) * BATCH_SECONDS
    size = sum(file.stat().st_size for file in directory.glob("llamactl.db*"))
    return [
        ["rows written a second", f"{written_rows / simulated:.0f}"],
        ["a batch, median ms", f"{1e3 * median(seconds):.1f}"],
        ["a batch, slowest ms", f"{1e3 * max(seconds):.0f}"],
        ["share of the time writing", f"{sum(seconds) / simulated:.2%}"],
        [f"database after {hours:g} h, MB", f"{size / 1e6:.1f}"],
    ]


def queried() -> list[list[str]]:
    """Measure the reports over full tables; the figures."""
    from keys.usage.models import SUMS, UsageDay
    from keys.usage.report import Report, page

    UsageDay.objects.all().delete()
    sums = dict.fromkeys(SUMS, 1)
    for day in range(400):
        UsageDay.objects.bulk_create(
            UsageDay(start=BEGIN + day * DAY_SECONDS, key_id=key, instance=f"model-{name}", **sums)
            for key in range(1, KEYS + 1)
            for name in range(1, INSTANCES + 1)
        )
    rows = []
    for days in (31, 400):
        for groups in (("key", "instance", "day"), ("key",), ("key", "instance")):
            report = Report(frozenset(groups), BEGIN, BEGIN + days * DAY_SECONDS)
            label = f"{days} days by {', '.join(groups)}, ms"
            rows.append([label, f"{1e3 * fastest(partial(page, report)):.0f}"])
    return rows


def fastest(work: Callable[[], object], times: int = 3) -> float:
    """The shortest duration of several calls, in seconds."""
    durations = []
    for _ in range(times):
        began = perf_counter()
        work()
        durations.append(perf_counter() - began)
    return min(durations)


if __name__ == "__main__":
    main(sys.argv[1:])
