"""A pytest plugin that lets each test process begin with its share of the slow tests.

They wait more than they compute, so they belong beside each other and before the others.
pytest-xdist gives each process an equal part of the list, in its order, and processes that are done
take tests from the end of another's part. In the order of the folders the slow modules came last:
for two minutes nothing else ran, and one processor was idle.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

import pytest

Module = list[pytest.Item]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The variable is pytest-xdist's; without it there is one process.
    items[:] = slow_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def slow_first(items: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """Order the tests in equal parts for the processes, each with its slow modules first.

    The tests of a module stay together, but for a part's last module: they share a stack.
    """
    modules = [list(found) for _, found in groupby(items, attrgetter("path"))]
    slow = [module for module in modules if _slow_tests(module)]
    parts: list[list[pytest.Item]] = [[] for _ in range(processes)]
    load = [0] * processes
    for module in sorted(slow, key=_slow_tests, reverse=True):
        least = load.index(min(load))
        parts[least] += module
        load[least] += _slow_tests(module)
    rest = [item for module in modules if not _slow_tests(module) for item in module]
    for number, part in enumerate(parts):
        room = max(0, len(items) * (number + 1) // processes - sum(map(len, parts[: number + 1])))
        part += rest[:room]
        del rest[:room]
    parts[-1] += rest
    return [item for part in parts for item in part]


def _slow_tests(module: Module) -> int:
    return sum(item.get_closest_marker("slow") is not None for item in module)
