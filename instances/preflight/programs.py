"""Which flags does the installed program take? Asked once, and remembered until its file changes.

A program's help is found under its command and known again by a stamp of its file (size, time of
change, inode). What took long to get is kept in ``data_dir`` too: vLLM thinks for many seconds.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from instances.backends.environment import backend_environment
from instances.backends.run_program import CommandFailed, output_of
from instances.preflight.bounded_threads import TooBusy, begin
from instances.preflight.help_text import MAX_CHARACTERS, Help, read_help

logger = logging.getLogger(__name__)

HELP_SECONDS = 60.0
"""After which a program that is asked for its help is killed."""
RETRY_SECONDS = 60.0
"""For so long a program that gave no help is not asked again, unless its file changes."""
SLOW_SECONDS = 1.0
"""Help that took longer than this is kept on disk."""
MOST_REMEMBERED = 64
MOST_PROGRAMS_AT_ONCE = 4
_LARGEST_FILE = 8 * MAX_CHARACTERS
_LOADER_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
"""What of an instance's own environment decides which program and which libraries are loaded."""


@dataclass(frozen=True)
class Program:
    """A program that can be asked, and what tells whether it is still the same."""

    argv: tuple[str, ...]
    help_flags: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    stamp: str

    @property
    def key(self) -> str:
        said = json.dumps([self.argv, self.help_flags, self.environment])
        return sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:40]


class NoHelp(Exception):
    """Why it is not known which flags a program takes, as a sentence."""


@dataclass(frozen=True)
class _HelpResult:
    stamp: str
    help: Help | None
    problem: str
    at: float


def program(
    command: Sequence[str],
    args: Sequence[str],
    *,
    help_flags: tuple[str, ...],
    configured: Mapping[str, str],
    own: Mapping[str, str],
) -> Program:
    """The program of ``command``, to be asked with the configured ``args`` in front of the flag.

    It gets the ``configured`` environment, and of an instance's ``own`` only what decides what is
    loaded: its secrets are none of the help's business. Raises OSError where it is not there.
    """
    loader = {name: own[name] for name in _LOADER_VARIABLES if name in own}
    return Program(
        argv=(*command, *args),
        help_flags=help_flags,
        environment=tuple(sorted({**configured, **loader}.items())),
        stamp=";".join(_stamp(word) for word in command if os.path.isabs(word)),
    )


def _stamp(path: str) -> str:
    """Size, time of change and inode; of a directory (the bundled server's) those of its files."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path) as entries:
            files = sorted(entry.path for entry in entries if entry.is_file())
        return ",".join(map(_stamp, files))
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


class HelpCache:
    """What programs said, in memory and on disk. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[str, _HelpResult] = {}
        self._asking: dict[tuple[str, str], Future[_HelpResult]] = {}

    def help_of(self, program: Program, directory: Path, patience_seconds: float) -> Help:
        """The flags of ``program``; whoever asks waits no longer than ``patience_seconds``.

        The program has longer than that: its answer is remembered for the next who asks.
        ``directory`` is where slow answers are kept. Raises NoHelp.
        """
        try:
            answer = self._remembered(program) or self._ask(program, directory).result(
                patience_seconds
            )
        except TooBusy:
            raise NoHelp("too many programs are being asked for their help now") from None
        except TimeoutError:
            raise NoHelp(
                f"its help took longer than {patience_seconds:g} s; it is still waited for, so"
                " checking again later may say more"
            ) from None
        if answer.help is None:
            raise NoHelp(answer.problem)
        return answer.help

    def _remembered(self, program: Program) -> _HelpResult | None:
        with self._lock:
            answer = self._answers.get(program.key)
        if answer is None or answer.stamp != program.stamp:
            return None
        if answer.help is None and self._clock() - answer.at > RETRY_SECONDS:
            return None
        return answer

    def _ask(self, program: Program, directory: Path) -> Future[_HelpResult]:
        """The answer that is on its way: each program is asked by one thread at a time."""
        key = (program.key, program.stamp)
        with self._lock:
            if key not in self._asking:
                if len(self._asking) >= MOST_PROGRAMS_AT_ONCE:
                    raise TooBusy
                self._asking[key] = begin(lambda: self._fetch(program, directory))
            return self._asking[key]

    def _fetch(self, program: Program, directory: Path) -> _HelpResult:
        path = directory / f"{program.key}.json"
        try:
            text = _load(path, program.stamp)
            known = read_help(text) if text is not None else None
            problem = ""
            if known is None:
                began = self._clock()
                text, known, problem = _listen(program)
                if known is not None and self._clock() - began > SLOW_SECONDS:
                    _keep(path, program.stamp, text)
            answer = _HelpResult(program.stamp, known, problem, self._clock())
            with self._lock:
                self._answers.pop(program.key, None)
                self._answers[program.key] = answer
                while len(self._answers) > MOST_REMEMBERED:
                    del self._answers[next(iter(self._answers))]
            return answer
        finally:
            with self._lock:
                self._asking.pop((program.key, program.stamp), None)


def _listen(program: Program) -> tuple[str, Help | None, str]:
    """What the program prints, what that says, and why it says nothing."""
    problem = ""
    text = ""
    for flag in program.help_flags:
        try:
            text = output_of(
                (*program.argv, flag),
                environment=backend_environment(dict(program.environment)),
                timeout_seconds=HELP_SECONDS,
                max_bytes=MAX_CHARACTERS,
            )
        except CommandFailed as error:
            problem = error.details[:300]
            continue
        if known := read_help(text):
            return text, known, ""
        problem = f"what it prints for {flag} is not understood"
    return text, None, problem


def _load(path: Path, stamp: str) -> str | None:
    """The kept help, if it is that of the same file."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_LARGEST_FILE))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s can't be read, so the program is asked again: %s", path, error)
        return None
    if not isinstance(document, dict) or document.get("stamp") != stamp:
        return None
    text = document.get("text")
    return text if isinstance(text, str) else None


def _keep(path: Path, stamp: str, text: str) -> None:
    """Complete or not at all: others may be reading it."""
    partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        partial.write_text(json.dumps({"stamp": stamp, "text": text}), encoding="ascii")
        partial.replace(path)
    except OSError as error:
        logger.warning("the help of a program can't be kept in %s: %s", path.parent, error)
        with suppress(OSError):
            partial.unlink()
