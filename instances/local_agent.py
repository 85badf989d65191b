"""Agent of this host's node: reads log files, runs programs, checks files."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from instances.backends.environment import backend_environment
from instances.launch import ExecutableNotFound, Launch, executed, launch_for, working_directory
from instances.logs.files import LONGEST_TAIL_BYTES, log_path, tail
from instances.logs.lines import LineReader
from instances.logs.reader import (
    BEFORE_THE_FIRST,
    LogReader,
    Position,
    position_of_last,
    range_of_last,
    start_of,
)
from instances.logs.retire import retire_log
from instances.options import InstanceOptions
from instances.preflight.check import check_options, is_local
from instances.program_info import program_output
from llamactl.config import current
from llamactl.masking import MASK
from nodes.agent import FindingDocument, FollowedLog, LogLine, LogText, StartCommand
from nodes.errors import LogUnreadable


class LocalAgent:
    """The operations of ``nodes.agent.NodeAgent`` on this host."""

    def last_lines(self, instance: str, count: int, *, max_bytes: int | None = None) -> list[str]:
        limit = LONGEST_TAIL_BYTES if max_bytes is None else max_bytes
        with _unreadable(instance):
            return tail(log_path(current(), instance), count, max_bytes=limit)

    def read_log(self, instance: str, *, lines: int | None = None) -> LogText | None:
        path = log_path(current(), instance)
        with _unreadable(instance):
            try:
                if lines is not None:
                    return LastLines(LogSnapshot(instance, path, range_of_last(path, lines)))
                return LogSnapshot(instance, path)
            except FileNotFoundError:
                return None

    def follow_log(self, instance: str, *, lines: int | None, after: str = "") -> FollowedLog:
        path = log_path(current(), instance)
        with _unreadable(instance):
            position = Position.from_text(after) or _beginning(path, lines)
        return _FollowedFile(instance, LogReader(path, position))

    def retire_log(self, instance: str) -> None:
        with _unreadable(instance):
            retire_log(log_path(current(), instance))

    def program_output(self, backend_type: str, flag: str) -> str:
        """Raises CommandFailed."""
        return program_output(backend_type, flag, current())

    def check_options(
        self, options: Mapping[str, object], *, unsaved: Collection[str]
    ) -> list[FindingDocument]:
        parsed = InstanceOptions.from_document(options)
        findings = check_options(parsed, current(), unsaved=unsaved)
        return [finding.to_document() for finding in findings]

    def start_command(self, name: str, options: Mapping[str, object], port: int) -> StartCommand:
        """Raises InvalidBackendOptions. Another node's programs are not searched on this host."""
        config = current()
        parsed = InstanceOptions.from_document(options)
        directory = str(working_directory(parsed, config))
        if is_local(parsed, config):
            with suppress(ExecutableNotFound):
                launch = launch_for(name, parsed, port, config, MASK)
                return StartCommand(
                    executed(launch), launch.environment, directory, _inherited(launch)
                )
        launch = launch_for(name, parsed, port, config, MASK, which=_unsearched)
        return StartCommand(launch.argv, launch.environment, directory)


def _inherited(launch: Launch) -> tuple[str, ...]:
    """Name the variables that a process of this host inherits; a container inherits none."""
    if launch.container_name:
        return ()
    passed = backend_environment({})
    return tuple(sorted(name for name in passed if name not in launch.environment))


class LogSnapshot:
    """The end of a log at the moment of opening, across a rotation meanwhile."""

    def __init__(self, instance: str, path: Path, text: tuple[Position, int] | None = None) -> None:
        """``text``: its start and its length; the whole current file without. Raises OSError."""
        start, self._remaining = text or start_of(path)
        self._instance = instance
        self._reader = LogReader(path, start)

    def read(self, limit: int) -> bytes:
        """Return the next block; lines written after the opening are left out."""
        with _unreadable(self._instance):
            block = self._reader.read(min(limit, self._remaining))
        self._remaining -= len(block)
        return block

    def close(self) -> None:
        self._reader.close()


class LastLines:
    """Readable lines of a log, block by block: 32 MiB as one text would take 200 MB.

    Invalid UTF-8 and NUL become U+FFFD, CR LF a line end, and the last line has one.
    """

    def __init__(self, text: LogText) -> None:
        self._text = text
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._held = ""
        """A CR at the end of a block: maybe half of a CR LF."""
        self._is_in_line = False
        self._is_at_end = False

    def read(self, limit: int) -> bytes:
        """Return the next block, which escapes may make longer than ``limit``."""
        while not self._is_at_end:
            block = self._text.read(limit)
            self._is_at_end = not block
            text = self._held + self._decoder.decode(block, final=self._is_at_end)
            self._held = "\r" if text.endswith("\r") else ""
            text = text.removesuffix("\r").replace("\r\n", "\n").replace("\x00", "\ufffd")
            if text:
                self._is_in_line = not text.endswith("\n")
            if self._is_at_end and (self._is_in_line or self._held):
                text += "\n"
            if text:
                return text.encode()
        return b""

    def close(self) -> None:
        self._text.close()


class _FollowedFile:
    """A log file that is read line by line while it grows."""

    def __init__(self, instance: str, reader: LogReader) -> None:
        self._instance = instance
        self._lines = LineReader(reader)

    def read_lines(self) -> list[LogLine]:
        with _unreadable(self._instance):
            return self._lines.read_lines()

    def close(self) -> None:
        self._lines.close()


def _beginning(path: Path, lines: int | None) -> Position:
    """Return the position of the last ``lines``, or of the current file's start for None."""
    if lines is not None:
        return position_of_last(path, lines)
    try:
        return start_of(path)[0]
    except FileNotFoundError:
        return BEFORE_THE_FIRST


@contextmanager
def _unreadable(instance: str) -> Iterator[None]:
    """Turn an OSError into LogUnreadable."""
    try:
        yield
    except OSError as error:
        raise LogUnreadable(instance, error.strerror or str(error)) from error


def _unsearched(command: str, *_: object, **__: object) -> str:
    """Stand in for ``shutil.which``: return the command as it was named."""
    return command
