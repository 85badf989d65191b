"""A pytest plugin that writes the outcome of every test to a JSON file: ``--outcomes PATH``.

The file is written at the end of the session by the process that reports: under xdist the
controller, which also reports a crashed worker as a failure of the test that ran there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest


@dataclass
class Outcomes:
    """One session: node ids by outcome, and the text of each failure."""

    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Node id to traceback and captured output, of all phases that failed."""
    uncollected: list[str] = field(default_factory=list)
    """Modules that could not be imported: their tests have no outcome."""

    @classmethod
    def read(cls, path: Path) -> Outcomes:
        """Read the file; a session that was killed has not written any."""
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def add(self, report: pytest.TestReport) -> None:
        """Count a test once: a failure in any phase makes the test a failed one."""
        node = report.nodeid
        if report.failed:
            self.failed[node] = self.failed.get(node, "") + _text(report)
        elif report.skipped:
            self.skipped.append(node)
        elif report.when == "call":
            self.passed.append(node)

    def write(self, path: Path) -> None:
        self.passed = [node for node in self.passed if node not in self.failed]
        path.write_text(json.dumps(asdict(self)))


class Recorder:
    """Collects the outcomes of the session that runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes = Outcomes()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._outcomes.add(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._outcomes.uncollected.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._outcomes.write(self._path)


def _text(report: pytest.TestReport) -> str:
    sections = (f"{title:-^80}\n{content.rstrip()}\n" for title, content in report.sections)
    return f"{report.longreprtext}\n{''.join(sections)}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", metavar="PATH", help="write the outcomes of the tests as JSON")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--outcomes")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(path)))
