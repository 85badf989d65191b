"""The search for the newest Python, among interpreters that are scripts with a prepared answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import newest_python
from tests.support.newest_python import Interpreter, candidates, newest, probe

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make an interpreter that answers any question with this version."""

    def make(
        place: str,
        *version: object,
        name: str = "cpython",
        level: str = "final",
        is_free_threaded: bool = False,
    ) -> Path:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        answer = json.dumps([name, [*version, level, 0], is_free_threaded])
        path.write_text(f"#!/bin/sh\necho '{answer}'\n")
        path.chmod(0o755)
        return path

    return make


def test_this_interpreter_is_usable() -> None:
    assert probe(Path(sys.executable)) == Interpreter(
        (sys.version_info[0], sys.version_info[1], sys.version_info[2]), Path(sys.executable)
    )


def test_the_highest_version_counts_and_not_the_order_of_the_letters(make: Make) -> None:
    paths = [make("a", 3, 13, 2), make("b", 3, 14, 0), make("c", 3, 11, 9), make("d", 3, 13, 10)]
    assert newest(paths) == Interpreter((3, 14, 0), paths[1])
    assert newest([paths[0], paths[3]]) == Interpreter((3, 13, 10), paths[3])
    assert newest([]) is None


@pytest.mark.parametrize(
    ("version", "flaw"),
    [
        ((3, 10, 4), {}),
        ((3, 15, 0), {}),
        ((2, 7, 18), {}),
        ((3, 14, 0), {"level": "candidate"}),
        ((3, 13, 1), {"is_free_threaded": True}),
        ((3, 11, 13), {"name": "pypy"}),
    ],
)
def test_an_unsuitable_interpreter_is_passed_over(
    make: Make, version: tuple[int, ...], flaw: dict[str, object]
) -> None:
    unsuitable, other = make("unsuitable", *version, **flaw), make("other", 3, 12, 1)
    assert newest([unsuitable, other]) == Interpreter((3, 12, 1), other)


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/sh\nexit 127\n",
        "#!/bin/sh\necho nonsense\n",
        "#!/bin/sh\necho '[1]'\n",
        "no program",
    ],
    ids=["pyenv's shim", "nonsense", "another answer", "no program"],
)
def test_an_interpreter_that_does_not_work_is_passed_over(tmp_path: Path, script: str) -> None:
    path = tmp_path / "python3.14"
    path.write_text(script)
    path.chmod(0o755)
    assert newest([path, tmp_path / "missing"]) is None


def test_candidates_are_of_the_path_and_of_both_roots_of_pyenv(make: Make, tmp_path: Path) -> None:
    expected = {
        make("bin/python3.14", 3, 14, 0),
        make("home/.pyenv/versions/3.13.0/bin/python", 3, 13, 0),
        make("elsewhere/versions/3.12.1/bin/python", 3, 12, 1),
    }
    make("bin/python3.10", 3, 10, 1)
    make("home/.pyenv/versions/2.7.18/bin/python", 2, 7, 18)
    environ = {"PATH": str(tmp_path / "bin"), "PYENV_ROOT": str(tmp_path / "elsewhere")}
    assert set(candidates(environ, tmp_path / "home")) == expected
    assert set(candidates({}, tmp_path / "nobody")) == set()


@pytest.mark.parametrize(
    ("found", "printed", "said"),
    [
        (None, "", "the tests run on it alone"),
        (Interpreter((3, 11, 99), Path("/usr/bin/python3.11")), "", "the tests run on it alone"),
        (
            Interpreter((3, 99, 0), Path("/opt/python3.99")),
            "/opt/python3.99\n",
            "Python 3.99.0 (/opt/python3.99) is newer",
        ),
    ],
)
def test_the_run_says_which_interpreter_it_uses(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: Interpreter | None,
    printed: str,
    said: str,
) -> None:
    monkeypatch.setattr(newest_python, "newest", lambda paths: found)
    assert newest_python.main() == 0
    output = capsys.readouterr()
    assert output.out == printed
    assert said in output.err
