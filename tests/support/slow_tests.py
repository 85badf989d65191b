"""A pytest plugin that reports tests of more than 10 s that are not marked ``slow``.

A report and no failure: on a busy machine any test may take so long. The setup is not counted,
since a stack that tests share is started by the test that happens to come first.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

MAX_SECONDS = 10.0


class DurationCheck:
    """Collects the unmarked slow tests of the session."""

    def __init__(self) -> None:
        self._found: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        is_slow = report.when == "call" and report.duration > MAX_SECONDS
        if is_slow and "slow" not in report.keywords:
            self._found[report.nodeid] = report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._found:
            terminalreporter.section(f"not marked slow, but over {MAX_SECONDS:g} s")
            for line in self.lines():
                terminalreporter.line(line)

    def lines(self) -> Iterator[str]:
        """The unmarked slow tests, the slowest first."""
        for node, seconds in sorted(self._found.items(), key=lambda item: -item[1]):
            yield f"{seconds:.1f} s {node}"


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(DurationCheck())
