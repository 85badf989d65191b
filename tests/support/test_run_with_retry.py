"""The program that CI runs the tests by, on small suites of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.run_with_retry import closing_line
from tests.support.until import until

pytestmark = pytest.mark.slow  # each runs a pytest of its own

Run = Callable[..., subprocess.CompletedProcess[str]]

FLAKY = """
from pathlib import Path
import pytest

def fails_first(name):
    mark = Path(__file__).with_name(name)
    if not mark.exists():
        mark.touch()
        print("what it printed")
        raise AssertionError("the first time")
"""
PASSES = "def test_passes(): pass\n"
FAILS = "def test_fails(): assert 1 == 2\n"
FAILS_ONCE = "def test_fails_once(): fails_first('once')\n"


def command(*arguments: str) -> list[str]:
    program = [sys.executable, "-m", "tests.support.run_with_retry"]
    return [*program, "-n1", "-p", "no:cacheprovider", *arguments]


def environment() -> dict[str, str]:
    names = ("DJANGO_SETTINGS_MODULE", "PYTEST_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(names)}
    # No plugins but xdist: the others take most of the time of a run as short as these.
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}
    return {**kept, **plugins, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the program on a suite of one module that has this text."""

    def run(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "pytest.ini").touch()
        (tmp_path / "test_toy.py").write_text(FLAKY + text)
        return subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=50,
        )

    return run


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return re.sub(r" in [\d.]+s", "", done.stdout.splitlines()[-1]).strip("= ")


def test_a_suite_that_passes_runs_once(run: Run) -> None:
    done = run(PASSES)
    assert (done.returncode, last_line(done)) == (0, "1 passed")
    assert "once more" not in done.stdout


def test_a_test_that_fails_twice_fails_the_run(run: Run) -> None:
    done = run(PASSES + FAILS)
    assert (done.returncode, last_line(done)) == (1, "1 failed, 1 passed")
    assert "passed alone" not in done.stdout


def test_a_test_that_passes_alone_is_listed_with_its_first_failure(run: Run) -> None:
    done = run(PASSES + FAILS_ONCE)
    assert (done.returncode, last_line(done)) == (0, "2 passed")
    told = done.stdout.partition(" passed alone ")[2]
    assert "AssertionError: the first time" in told
    assert "what it printed" in told
    assert "passed alone: 1 " in told
    assert "PASSED ALONE test_toy.py::test_fails_once" in told


def test_a_test_that_passes_alone_excuses_no_other(run: Run) -> None:
    done = run(FAILS + FAILS_ONCE)
    assert (done.returncode, last_line(done)) == (1, "1 failed, 1 passed")
    assert "PASSED ALONE test_toy.py::test_fails_once" in done.stdout


@pytest.mark.parametrize(("count", "status"), [(5, 0), (6, 1)])
def test_more_than_five_that_pass_alone_fail_the_run(run: Run, count: int, status: int) -> None:
    cases = f"@pytest.mark.parametrize('n', range({count}))\ndef test(n): fails_first(str(n))\n"
    done = run(PASSES + cases)
    closing = f"{count + 1} passed" if status == 0 else f"{count} failed, 1 passed"
    assert (done.returncode, last_line(done)) == (status, closing)
    assert f"passed alone: {count} " in done.stdout


def test_an_error_of_a_fixture_is_retried_too(run: Run) -> None:
    fixture = "@pytest.fixture\ndef stack():\n    yield\n    fails_first('teardown')\n"
    done = run(fixture + "def test_it(stack): pass\n")
    assert (done.returncode, last_line(done)) == (0, "1 passed")
    assert "PASSED ALONE test_toy.py::test_it" in done.stdout


def test_a_crashed_worker_fails_the_test_that_ran_there(run: Run) -> None:
    crash = "def test_crashes():\n    import os\n    os._exit(3)\n"
    done = run(PASSES + crash)
    assert done.returncode != 0
    crash_once = crash.replace(
        "    os._exit(3)", "    os.path.exists('x') or os._exit(open('x', 'w').close() or 3)"
    )
    done = run(PASSES + crash_once)
    assert (done.returncode, last_line(done)) == (0, "2 passed")
    assert "PASSED ALONE test_toy.py::test_crashes" in done.stdout


@pytest.mark.parametrize(
    ("text", "arguments", "status"),
    [
        ("import nowhere\n" + FAILS_ONCE, (), None),
        (PASSES, ("-k", "nothing"), pytest.ExitCode.NO_TESTS_COLLECTED),
        (PASSES, ("--no-such-option",), pytest.ExitCode.USAGE_ERROR),
        ("def test_it():\n    raise KeyboardInterrupt\n", (), pytest.ExitCode.INTERRUPTED),
    ],
    ids=["collection", "no tests", "usage", "interrupt"],
)
def test_a_run_without_outcomes_fails_at_once(
    run: Run, text: str, arguments: tuple[str, ...], status: int | None
) -> None:
    done = run(text, *arguments)
    assert done.returncode != 0
    assert status in (None, done.returncode)
    assert "once more" not in done.stdout


def test_too_many_failures_are_not_retried(run: Run) -> None:
    done = run("@pytest.mark.parametrize('n', range(41))\ndef test(n): assert 0\n")
    assert done.returncode == 1
    assert "once more, alone" not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_leaves_no_process(tmp_path: Path, number: int) -> None:
    text = "import os, time\ndef test_long():\n    open('pid', 'w').write(str(os.getpid()))\n"
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_toy.py").write_text(text + "    time.sleep(600)\n")
    process = subprocess.Popen(
        command(), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, process_group=0
    )
    file = tmp_path / "pid"
    pid = int(until(lambda: file.read_text() if file.exists() else "", "the test runs"))
    # A terminal sends Ctrl-C to the whole group, a CI runner SIGTERM to the program alone.
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert process.wait(30) != 0
    until(lambda: not Path(f"/proc/{pid}").exists(), "the worker of pytest ended")


@pytest.mark.parametrize(
    ("seconds", "closing"),
    [(1.5, "1 failed, 2 passed in 1.50s"), (3725.0, "1 failed, 2 passed in 3725.00s (1:02:05)")],
)
def test_closing_line_has_the_form_of_pytests(seconds: float, closing: str) -> None:
    assert closing_line(1, 2, 0, seconds).strip("= ") == closing
