"""Cache of the flags that installed programs list in their ``--help``.

A program is asked once, and again when its file changes. Help that took long is stored in
``data_dir`` too: vLLM takes many seconds to print its help.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from instances.backends.environment import backend_environment
from instances.backends.run_program import CommandFailed, output_of
from instances.preflight.daemon_threads import TooManyThreads, start
from instances.preflight.help_text import MAX_CHARACTERS, Help, read_help
from instances.preflight.programs import Program

logger = logging.getLogger(__name__)

HELP_SECONDS = 60.0
"""Time after which a program that prints its help is killed."""
RETRY_SECONDS = 60.0
"""Time before a program without help is asked again, unless its file changes."""
SLOW_SECONDS = 1.0
"""Help that took longer than this is stored on disk."""
MAX_RESULTS = 64
MAX_RUNNING_PROGRAMS = 4
_MAX_FILE_BYTES = 8 * MAX_CHARACTERS


class HelpUnavailable(Exception):
    """The reason why a program's flags are unknown, as a sentence."""


@dataclass(frozen=True)
class _HelpResult:
    """The outcome of asking a program: its help, or a problem."""

    stamp: str
    help: Help | None
    problem: str
    at: float


class HelpCache:
    """The help of programs, in memory and on disk. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._results: dict[str, _HelpResult] = {}
        self._pending: dict[tuple[str, str], Future[_HelpResult]] = {}

    def help_of(self, program: Program, directory: Path, timeout_seconds: float) -> Help:
        """Return the flags of ``program``; wait for the program at most ``timeout_seconds``.

        A slower program runs on, and its help is cached for the next call. ``directory`` is the
        place of stored help. Raises HelpUnavailable.
        """
        try:
            result = self._cached(program) or self._ask(program, directory).result(timeout_seconds)
        except TooManyThreads:
            raise HelpUnavailable("too many programs are being asked for their help now") from None
        except TimeoutError:
            raise HelpUnavailable(
                f"its help took longer than {timeout_seconds:g} s; the program is still running, so"
                " a later check may tell more"
            ) from None
        if result.help is None:
            raise HelpUnavailable(result.problem)
        return result.help

    def _cached(self, program: Program) -> _HelpResult | None:
        with self._lock:
            result = self._results.get(program.key)
        if result is None or result.stamp != program.stamp:
            return None
        if result.help is None and self._clock() - result.at > RETRY_SECONDS:
            return None
        return result

    def _ask(self, program: Program, directory: Path) -> Future[_HelpResult]:
        """Return the pending result of a program; only one thread at a time asks a program."""
        key = (program.key, program.stamp)
        with self._lock:
            if key not in self._pending:
                if len(self._pending) >= MAX_RUNNING_PROGRAMS:
                    raise TooManyThreads
                self._pending[key] = start(lambda: self._fetch(program, directory))
            return self._pending[key]

    def _fetch(self, program: Program, directory: Path) -> _HelpResult:
        try:
            known, problem = self._load_or_run(program, directory / f"{program.key}.json")
            result = _HelpResult(program.stamp, known, problem, self._clock())
            with self._lock:
                self._results.pop(program.key, None)
                self._results[program.key] = result
                while len(self._results) > MAX_RESULTS:
                    del self._results[next(iter(self._results))]
            return result
        finally:
            with self._lock:
                self._pending.pop((program.key, program.stamp), None)

    def _load_or_run(self, program: Program, path: Path) -> tuple[Help | None, str]:
        text = _load(path, program.stamp)
        if text is not None and (known := read_help(text)):
            return known, ""
        began = self._clock()
        text, known, problem = _run(program)
        if known is not None and self._clock() - began > SLOW_SECONDS:
            _store(path, program.stamp, text)
        return known, problem


def _run(program: Program) -> tuple[str, Help | None, str]:
    """Run a program for its help; return the text, its flags, and why there are no flags."""
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
        problem = f"its output for {flag} is not understood"
    return text, None, problem


def _load(path: Path, stamp: str) -> str | None:
    """Return the stored help, if it is that of the same file."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_FILE_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s can't be read, so the program is asked again: %s", path, error)
        return None
    if not isinstance(document, dict) or document.get("stamp") != stamp:
        return None
    text = document.get("text")
    return text if isinstance(text, str) else None


def _store(path: Path, stamp: str, text: str) -> None:
    """Write the whole file or none: other processes may be reading the file."""
    partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        partial.write_text(json.dumps({"stamp": stamp, "text": text}), encoding="ascii")
        partial.replace(path)
    except OSError as error:
        logger.warning("the help of a program can't be stored in %s: %s", path.parent, error)
        with suppress(OSError):
            partial.unlink()
