"""The order of the tests in a parallel run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from tests.support.slow_first import slow_first


@dataclass(frozen=True)
class Item:
    path: str
    name: int
    is_slow: bool = False

    def get_closest_marker(self, name: str) -> object | None:
        return name if self.is_slow else None


def module(path: str, tests: int, slow: int = 0) -> list[Item]:
    return [Item(path, number, number < slow) for number in range(tests)]


def ordered(items: list[Item], processes: int) -> list[Item]:
    return cast(list[Item], slow_first(cast(list[pytest.Item], items), processes))


FOLDERS = [
    *module("a", 30),
    *module("b", 3, slow=1),
    *module("c", 41),
    *module("x", 4, slow=4),
    *module("y", 2, slow=2),
    *module("z", 20),
]


@pytest.mark.parametrize("processes", [1, 2, 4, 7, 150])
def test_every_test_is_there_once(processes: int) -> None:
    found = ordered(FOLDERS, processes)
    assert sorted(found, key=lambda item: (item.path, item.name)) == FOLDERS


def test_each_part_begins_with_slow_modules() -> None:
    paths = [item.path for item in ordered(FOLDERS, 2)]
    assert len(paths) == 100
    assert paths[:4] == ["x"] * 4
    assert paths[4:50] == [*"a" * 30, *"c" * 16]
    assert paths[50:55] == [*"yybbb"]
    assert paths[55:] == [*"c" * 25, *"z" * 20]


def test_without_slow_tests_the_order_stays() -> None:
    items: Any = [*module("a", 5), *module("b", 7)]
    assert ordered(items, 3) == items
