"""Run the tests in parallel, and run those that failed once more, alone and in sequence.

    python -m tests.support.run_with_retry [PYTEST ARGUMENTS]

A test that fails twice shows a flaw; a test that passes alone met a busy machine. Only a second
failure fails the run. A test that passed alone is listed with the output of its first failure, and
more than ``MAX_PASSED_ALONE`` of them fail the run too: flaws that depend on timing look the same.
The run fails at once, without a second one, where tests had no chance to run: after an error of
collection, an internal error, Ctrl-C, or when no test was selected.

The last line is pytest's own closing line, or one of the same form for both runs together.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.outcomes import Outcomes

PARALLEL = ("-n", "auto", "--dist", "worksteal")
MAX_PASSED_ALONE = 5
MAX_RETRIED = 40
"""With more failures the run is lost, and a second run in sequence would take too long."""


def main(arguments: Sequence[str]) -> int:
    """Do both runs and return the exit code."""
    started = time.monotonic()
    status, first = run_pytest([*PARALLEL, *arguments])
    if status != pytest.ExitCode.TESTS_FAILED or first.uncollected or not first.failed:
        return status
    if len(first.failed) > MAX_RETRIED:
        print(f"{len(first.failed)} tests failed: too many to run them once more")
        return status
    print(f"\nRunning {len(first.failed)} failed tests once more, alone", flush=True)
    status, second = run_pytest(["-n0", *first.failed])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return status
    passed_alone = [node for node in first.failed if node in second.passed]
    failed = [node for node in first.failed if node not in second.passed]
    report_passed_alone(passed_alone, first)
    if len(passed_alone) > MAX_PASSED_ALONE:
        failed, passed_alone = [*failed, *passed_alone], []
    passed = len(first.passed) + len(passed_alone)
    print(closing_line(len(failed), passed, len(first.skipped), time.monotonic() - started))
    return pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK


def run_pytest(arguments: Sequence[str]) -> tuple[int, Outcomes]:
    """Run pytest in a process of its own; return its exit code and the outcomes of the tests.

    Ctrl-C reaches pytest from the terminal, and SIGTERM is passed on: pytest then ends what its
    tests have started, so this process waits for it.
    """
    with tempfile.TemporaryDirectory(prefix="llamactl-outcomes-") as directory:
        path = Path(directory) / "outcomes.json"
        plugin = ("-p", "tests.support.outcomes", "--outcomes", str(path))
        process = subprocess.Popen([sys.executable, "-m", "pytest", *plugin, *arguments])
        previous = {
            signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
        }
        try:
            status = process.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return (status if status >= 0 else 128 - status), Outcomes.read(path)


def report_passed_alone(nodes: Sequence[str], first: Outcomes) -> None:
    """List the tests that passed alone, each with the output of its first failure."""
    if not nodes:
        return
    print(f"\n{' passed alone ':=^80}")
    for node in nodes:
        print(f"{f' {node} ':_^80}\n{first.failed[node]}")
    print(f"passed alone: {len(nodes)} (more than {MAX_PASSED_ALONE} fail the run)")
    for node in nodes:
        print(f"PASSED ALONE {node}")


def closing_line(failed: int, passed: int, skipped: int, seconds: float) -> str:
    """Tell the counts of both runs in the form of pytest's closing line."""
    counts = [(failed, "failed"), (passed, "passed"), (skipped, "skipped")]
    told = ", ".join(f"{count} {outcome}" for count, outcome in counts if count)
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f" ({hours}:{minutes:02}:{rest:02})" if seconds >= 60 else ""
    return f"{f' {told} in {seconds:.2f}s{clock} ':=^80}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
