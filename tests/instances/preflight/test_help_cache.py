"""Help of programs that behave, change, hang or print without end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from instances.preflight import help_cache
from instances.preflight.help_cache import HelpCache, HelpUnavailable
from instances.preflight.help_text import Help
from instances.preflight.programs import Program, identify

TIMEOUT_SECONDS = 30.0


class Script:
    """A program with a replaceable text, which records each run."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "program"
        self.runs = directory / "runs"

    def write(self, code: str) -> None:
        self.path.write_text(
            f"#!{sys.executable} -S\nimport sys, os, time\n"
            f"open({str(self.runs)!r}, 'a').write(repr(sys.argv[1:]) + '\\n')\n{code}\n"
        )
        self.path.chmod(0o755)

    def lists(self, *names: str) -> None:
        flags = [*names, *(f"--flag-{number}" for number in range(30))]
        self.write(f"print('\\n'.join({flags!r}))")

    @property
    def times(self) -> int:
        return len(self.runs.read_text().splitlines()) if self.runs.exists() else 0

    def asked(self, *args: str, help_flags: tuple[str, ...] = ("--help",)) -> Program:
        return identify(
            [str(self.path)],
            args,
            help_flags=help_flags,
            configured={},
            own={"PATH": os.environ["PATH"], "SECRET": "s3cret"},
        )


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return tmp_path / "help"


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that hang are killed soon, and are gone when the test ends."""
    monkeypatch.setattr(help_cache, "HELP_SECONDS", 4.0)


def ask(cache: HelpCache, asked: Program, stored: Path, timeout: float = TIMEOUT_SECONDS) -> Help:
    return cache.help_of(asked, stored, timeout)


def test_program_is_asked_once(
    script: Script, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(help_cache, "SLOW_SECONDS", TIMEOUT_SECONDS)
    script.lists("--one")
    cache = HelpCache()
    assert "--one" in ask(cache, script.asked("serve"), stored)
    assert "--one" in ask(cache, script.asked("serve"), stored)
    assert script.runs.read_text() == "['serve', '--help']\n"
    assert not stored.exists()


def test_changed_program_is_asked_again(script: Script, stored: Path) -> None:
    cache = HelpCache()
    script.lists("--one")
    ask(cache, script.asked(), stored)
    script.lists("--other")
    flags = ask(cache, script.asked(), stored)
    assert "--other" in flags
    assert "--one" not in flags


def test_touched_program_is_asked_again(script: Script, stored: Path) -> None:
    cache = HelpCache()
    script.lists("--one")
    ask(cache, script.asked(), stored)
    os.utime(script.path, ns=(1, 1))
    ask(cache, script.asked(), stored)
    assert script.times == 2


def test_slow_help_survives_a_restart(
    script: Script, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(help_cache, "SLOW_SECONDS", -1.0)
    script.lists("--one")
    ask(HelpCache(), script.asked(), stored)
    assert "--one" in ask(HelpCache(), script.asked(), stored)
    assert script.times == 1
    # But not a change of the program.
    script.lists("--other")
    assert "--other" in ask(HelpCache(), script.asked(), stored)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stamp": 1}', "[" * 100_000, "\x00\xff"])
def test_a_damaged_file_of_stored_help_is_not_used(
    script: Script, stored: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(help_cache, "SLOW_SECONDS", -1.0)
    script.lists("--one")
    ask(HelpCache(), script.asked(), stored)
    (file,) = stored.iterdir()
    file.write_text(text, encoding="latin-1")
    assert "--one" in ask(HelpCache(), script.asked(), stored)


def test_help_is_returned_although_it_cannot_be_stored(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(help_cache, "SLOW_SECONDS", -1.0)
    script.lists("--one")
    assert "--one" in ask(HelpCache(), script.asked(), Path("/proc/nowhere"))


def test_the_second_help_flag_is_tried(script: Script, stored: Path) -> None:
    """It should serve versions of vLLM that don't know ``--help=all``."""
    flags = "".join(f"--flag-{number}\\n" for number in range(30))
    script.write(f"sys.exit(2) if '--help=all' in sys.argv else print('{flags}')")
    assert ask(HelpCache(), script.asked(help_flags=("--help=all", "--help")), stored)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.exit('no such option')", "no such option"),
        ("print('hello')", "is not understood"),
        ("", "is not understood"),
        ("while True: print('--flag N   ' + 'y' * 1000)", "printed more than"),
        ("os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
def test_a_program_without_help_is_asked_again_after_a_minute(
    script: Script, stored: Path, code: str, said: str
) -> None:
    now = 0.0
    cache = HelpCache(clock=lambda: now)
    script.write(code)
    for _ in range(2):
        with pytest.raises(HelpUnavailable, match=said):
            ask(cache, script.asked(), stored)
    assert script.times == 1
    now = 61.0
    with pytest.raises(HelpUnavailable, match=said):
        ask(cache, script.asked(), stored)
    assert script.times == 2


@pytest.mark.usefixtures("bounded")
def test_hanging_program_is_neither_waited_for_nor_left_behind(
    script: Script, stored: Path
) -> None:
    script.write(
        f"open({str(stored.parent / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    )
    cache = HelpCache()
    with pytest.raises(HelpUnavailable, match=r"took longer than 0\.1 s"):
        ask(cache, script.asked(), stored, timeout=0.1)
    with pytest.raises(HelpUnavailable, match="did not end within"):
        ask(cache, script.asked(), stored)
    assert script.times == 1
    pid = int((stored.parent / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_help_of_a_slow_program_is_cached(script: Script, stored: Path) -> None:
    flags = "".join(f"--flag-{number}\\n" for number in range(30))
    script.write(f"time.sleep(0.3)\nprint('{flags}')")
    cache = HelpCache()
    with pytest.raises(HelpUnavailable, match="may tell more"):
        ask(cache, script.asked(), stored, timeout=0.01)
    assert "--flag-1" in ask(cache, script.asked(), stored)
    assert script.times == 1


@pytest.mark.usefixtures("bounded")
def test_only_so_many_programs_are_asked_at_once(tmp_path: Path, stored: Path) -> None:
    cache = HelpCache()
    said = []
    for number in range(help_cache.MAX_RUNNING_PROGRAMS + 1):
        (tmp_path / str(number)).mkdir()
        script = Script(tmp_path / str(number))
        script.write("time.sleep(600)")
        with pytest.raises(HelpUnavailable) as caught:
            ask(cache, script.asked(), stored, timeout=0.01)
        said.append(str(caught.value))
    assert "too many programs" in said.pop()
    assert not any("too many programs" in text for text in said)
    deadline = time.monotonic() + 30
    while cache._pending:  # the killed ones must be gone before the test is
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_help_runs_without_the_instances_secrets(script: Script, stored: Path) -> None:
    script.write("sys.exit(repr(dict(os.environ)))")
    with pytest.raises(HelpUnavailable) as caught:
        ask(HelpCache(), script.asked(), stored)
    assert "s3cret" not in str(caught.value)
    assert "SECRET" not in dict(script.asked().environment)
