"""The report of slow tests without their mark."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.support.slow_tests import MAX_SECONDS, DurationCheck


def report(
    node: str,
    *marks: str,
    seconds: float = MAX_SECONDS + 2,
    when: Literal["setup", "call"] = "call",
) -> pytest.TestReport:
    keywords: dict[str, Literal[1]] = dict.fromkeys(marks, 1)
    return pytest.TestReport(node, ("", 0, ""), keywords, "passed", None, when, duration=seconds)


def test_only_the_call_of_an_unmarked_slow_test_is_reported() -> None:
    check = DurationCheck()
    check.pytest_runtest_logreport(report("unmarked"))
    check.pytest_runtest_logreport(report("slowest", seconds=99))
    check.pytest_runtest_logreport(report("marked", "slow"))
    check.pytest_runtest_logreport(report("quick", seconds=1))
    check.pytest_runtest_logreport(report("starts a shared stack", when="setup"))
    assert list(check.lines()) == ["99.0 s slowest", "12.0 s unmarked"]
