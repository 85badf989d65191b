"""Interface of the web side to a node: its logs, its programs, its checks of options.

A node's log files, backend programs and model files lie on the node's own disk. A web process may
run on another host, so a caller asks the node's agent and neither reads a disk nor runs a program
by itself. Arguments and results are plain data, and logs come in pieces, so that an agent can
answer over a network too.

Methods block, except where a docstring says otherwise; call them off the event loop. What a node
can't do is raised as a ``LlamactlError``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypedDict

ANY_NODE = ""
"""Registers the agent that answers for each node without an agent of its own."""


class LogLine(NamedTuple):
    """One line of a followed log."""

    position: str
    """The place after the line; ``NodeAgent.follow_log`` resumes there."""
    text: str


class LogText(Protocol):
    """The text that a log holds at one moment, read in blocks."""

    def read(self, limit: int) -> bytes:
        """Return the next block, of ``limit`` bytes at most; ``b""`` at the end.

        Raises LogUnreadable.
        """

    def close(self) -> None:
        """Release the log. Blocks for one read at most."""


class FollowedLog(Protocol):
    """A log that is read while it grows and is rotated."""

    def read_lines(self) -> list[LogLine]:
        """Return the lines since the last call, at once; empty if there are none yet.

        Raises LogUnreadable.
        """

    def close(self) -> None:
        """Release the log. Blocks for one read at most."""


class FindingDocument(TypedDict):
    """A finding of a check of options, in the API's JSON shape."""

    field: str
    severity: str
    message: str
    suggestion: str


@dataclass(frozen=True)
class StartCommand:
    """The process that a start of an instance would create."""

    argv: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    """The variables that are added to the worker's. Their values may be secrets."""
    working_directory: str
    inherited: tuple[str, ...] = ()
    """Names of the variables that come from the worker's own environment."""


class NodeAgent(Protocol):
    """The operations of the web side on one node."""

    def last_lines(self, instance: str, count: int, *, max_bytes: int | None = None) -> list[str]:
        """Return the last ``count`` lines of a log; empty for an instance never started.

        At most ``max_bytes`` of the log are read. Raises LogUnreadable.
        """

    def read_log(self, instance: str, *, lines: int | None = None) -> LogText | None:
        """Open the current log file as it is now; ``None`` for an instance never started.

        ``lines``: only the last lines, of the rotated files too, each with a line end. Raises
        LogUnreadable.
        """

    def follow_log(self, instance: str, *, lines: int | None, after: str = "") -> FollowedLog:
        """Open a log that is read while it grows.

        The first line read is the one after the position ``after``. Without a valid position it
        is the first of the last ``lines``, or of the whole current file if ``lines`` is None.

        Raises LogUnreadable.
        """

    def retire_log(self, instance: str) -> None:
        """Put the log aside: the next instance of the name begins an empty one.

        Raises LogUnreadable.
        """

    def program_output(self, backend_type: str, flag: str) -> str:
        """Run a backend's program with ``flag`` (``--help``, ``--version`` …).

        Returns standard output and standard error as one text.
        """

    def check_options(
        self, options: Mapping[str, object], *, unsaved: Collection[str]
    ) -> list[FindingDocument]:
        """Compare an options document with the node's programs and files.

        ``unsaved`` names the variables of its ``environment`` that no saved instance has.
        Returns errors first; empty if all fits or nothing could be checked.
        """

    def start_command(self, name: str, options: Mapping[str, object], port: int) -> StartCommand:
        """Return the command of a start. The key shared with the backend is masked in it.

        A program that is not installed is named as the options or the config name it.
        """


_agents: dict[str, NodeAgent] = {}


def register_agent(agent: NodeAgent, *, node: str = ANY_NODE) -> None:
    """Let ``agent`` answer for ``node`` from now on."""
    _agents[node] = agent


def unregister_agent(node: str) -> None:
    """Undo ``register_agent``."""
    _agents.pop(node, None)


def has_own_agent(node: str) -> bool:
    """Whether ``node`` has an agent of its own."""
    return node in _agents


def agent_for(node: str) -> NodeAgent:
    """Return the agent of a node.

    A node without an agent of its own is answered for by this host: several workers of one host
    share its ``data_dir``, logs included.
    """
    return _agents.get(node) or _agents[ANY_NODE]
