"""Reader of pasted command lines: the inverse of building the arguments of a program.

A pasted command is read, never run: ``parse`` takes environment, program and subcommand off the
front and reads the flags.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from instances.backends.command_errors import (
    CommandSyntaxError,
    EmptyCommand,
    WrongArity,
    WrongCommand,
)
from instances.backends.extra_args import Bare, extra_key, normal_value
from instances.backends.flags import SWITCH_WORDS, Flag, FlagTable, FlagType, Many
from instances.backends.shell_words import BLANKS, CHOSEN_PORT, DASHES, TO_HYPHEN, Word, split
from instances.backends.values import InvalidBackendOptions, is_flag_like, shown

MAX_COMMAND_LENGTH = 64 * 1024

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.ASCII | re.DOTALL)
_PROMPTS = frozenset({"$", ">", "%"})
_BEFORE_PROGRAM = frozenset({"env", "export", "sudo", "exec", "nohup", "time"})
_NUMBER = re.compile(r"[0-9]*\.?[0-9]+", re.ASCII)
_PYTHON = re.compile(r"python[0-9.]*", re.ASCII)


@dataclass(frozen=True)
class ParsedCommand:
    """Options and environment of a command line."""

    backend_options: dict[str, object]
    environment: dict[str, str] = field(default_factory=dict)
    """The assignments before the program: ``CUDA_VISIBLE_DEVICES=0 llama-server …``."""


@dataclass(frozen=True)
class Programs:
    """Commands that start a backend's program, in lower case."""

    commands: tuple[tuple[str, ...], ...]
    """A program and its subcommand, the longest first."""
    modules: tuple[tuple[str, ...], ...] = ()
    """The same after ``python -m``."""
    need_flags: frozenset[tuple[str, ...]] = frozenset()
    """Commands that must be followed by a flag: a word would be another subcommand."""

    def describe(self) -> str:
        """Name the first commands, for an error message."""
        return " or ".join(f"'{' '.join(words)}'" for words in self.commands[:2])


def read_words(command: str) -> list[Word]:
    """Split a pasted command into words. Raises CommandError."""
    if not command.strip():
        raise EmptyCommand
    if len(command) > MAX_COMMAND_LENGTH:
        raise CommandSyntaxError(
            f"the command must have at most {MAX_COMMAND_LENGTH} characters, got {len(command)}"
        )
    if "\x00" in command:
        raise CommandSyntaxError("the command must not contain NUL characters")
    return split(command)


def parse(words: Iterable[Word], table: FlagTable, programs: Programs) -> ParsedCommand:
    """Read the options that a command gives the program of ``table``, not yet in normal form.

    1. Take environment, program and subcommand off the front.
    2. A known flag takes as many words as its row says. Of a repeated flag the last value counts,
       unless the option is a list.
    3. An unknown flag takes the next word unless that word is a flag too, and goes to
       ``extra_args``.
    4. One word that belongs to no flag is the model.

    Raises CommandError.
    """
    left = deque(_with_chosen_port(_with_typed_dashes(words, table), table))
    environment = take_environment(left)
    recognised = _take_program(left, programs)
    reader = _Reader(table, left, recognised=recognised, programs=programs)
    return ParsedCommand(reader.read(), environment)


def recognises(words: Iterable[str], programs: Programs) -> bool:
    """Return whether the words begin with one of the programs."""
    try:
        return _take_program(deque(words), programs)
    except WrongCommand:
        return False


def take_environment(words: deque[str]) -> dict[str, str]:
    """Take the prompt, ``sudo`` and its like, and the variables off the front.

    Raises EmptyCommand if nothing is left.
    """
    environment: dict[str, str] = {}
    if words and words[0] in _PROMPTS:
        words.popleft()
    while words:
        if match := _ASSIGNMENT.fullmatch(words[0]):
            environment[match[1]] = match[2]
        elif words[0] not in _BEFORE_PROGRAM:
            return environment
        words.popleft()
    raise EmptyCommand


def _with_typed_dashes(words: Iterable[Word], table: FlagTable) -> list[str]:
    """Return words in which hyphens stand for the dashes that replaced them in flags and numbers.

    A long dash may stand for one hyphen or for two; the flag's name decides.
    """
    return [_typed(word, table) if word.is_bare else str(word) for word in words]


def _typed(bare: Word, table: FlagTable) -> str:
    word = str(bare)
    if not word or word[0] not in DASHES or not any(dash in word for dash in DASHES[1:]):
        return word
    name, equals, value = word.partition("=")
    core = name.lstrip(DASHES)
    if _NUMBER.fullmatch(core):
        return f"-{core}{equals}{value}"
    core = core.translate(TO_HYPHEN)
    is_short = len(core) == 1 or (
        table.find_spelling(f"-{core}") is not None and table.find_spelling(f"--{core}") is None
    )
    return f"{'-' if is_short else '--'}{core}{equals}{value}"


def _with_chosen_port(words: Iterable[str], table: FlagTable) -> list[str]:
    """Return words in which ``--port $PORT`` is ``--port 0``: llamactl chooses the port.

    Raises WrongCommand for ``$PORT`` in any other place.
    """
    port = table.flags["port"]
    spellings = (port.spelling, *port.aliases)
    replaced: list[str] = []
    for word in words:
        name, _, value = word.rpartition("=")
        if word == CHOSEN_PORT and replaced[-1:] and replaced[-1] in spellings:
            word = "0"
        elif value == CHOSEN_PORT and name in spellings:
            word = f"{name}=0"
        elif CHOSEN_PORT in word:
            raise WrongCommand(
                f"{shown(word.replace(CHOSEN_PORT, '${PORT}'))} has the port that llamactl chooses,"
                f" which only {port.spelling} may name; leave it out"
            )
        replaced.append(word)
    return replaced


def _take_program(words: deque[str], programs: Programs) -> bool:
    """Take program and subcommand off the front; return whether there was a program."""
    lowered = [word.lower() for word in words]
    first = re.split(r"[/\\]", lowered[0])[-1].removesuffix(".exe")
    if _PYTHON.fullmatch(first) and lowered[1:2] == ["-m"]:
        for module in programs.modules:
            if tuple(lowered[2 : 2 + len(module)]) == module:
                _drop(words, 2 + len(module))
                return True
        raise WrongCommand(
            f"{shown(' '.join(list(words)[:3]))} is not the server of this backend; expected"
            f" {programs.describe()}"
        )
    for command in programs.commands:
        # A build may have a name of its own: llama-server-cuda, my-llama-server.
        named = first == command[0] or ("-" in command[0] and command[0] in first)
        if named and tuple(lowered[1 : len(command)]) == command[1:]:
            _drop(words, len(command))
            if command in programs.need_flags and words and not words[0].startswith("-"):
                raise WrongCommand(
                    f"'{command[0]} {words[0][:40]}' is not the server; expected"
                    f" {programs.describe()}"
                )
            return True
    return False


def _drop(words: deque[str], count: int) -> None:
    for _ in range(count):
        words.popleft()


class _Reader:
    """Reader of the flags of one command line."""

    def __init__(
        self, table: FlagTable, words: deque[str], *, recognised: bool, programs: Programs
    ) -> None:
        self.table = table
        self.words = words
        self.programs = programs
        self.recognised = recognised
        self.options: dict[str, object] = {}
        self.extra: dict[str, list[str | Bare]] = {}
        self.unclaimed: list[str] = []
        """Words that belong to no flag."""

    def read(self) -> dict[str, object]:
        starts_unclaimed = (
            bool(self.words) and not self.recognised and not self._is_flag(self.words[0])
        )
        while self.words:
            word = self.words.popleft()
            if self._is_flag(word):
                self._read_flag(word)
            else:
                self.unclaimed.append(word)
        if starts_unclaimed and ("model" in self.options or len(self.unclaimed) > 1):
            raise WrongCommand(
                f"{shown(self.unclaimed[0])} is not the program of this backend; expected"
                f" {self.programs.describe()}"
            )
        self._read_model()
        if self.extra:
            self.options["extra_args"] = {
                key: normal_value(times) for key, times in self.extra.items()
            }
        return self.options

    def _read_model(self) -> None:
        if not self.unclaimed:
            return
        model, *others = self.unclaimed
        if others:
            raise WrongCommand(
                f"{shown(others[0])} belongs to no flag; a value with blanks needs quotes"
            )
        if self.options.setdefault("model", model) != model:
            raise WrongCommand(
                f"{shown(model)} belongs to no flag, and the model is already"
                f" {shown(self.options['model'])}; a value with blanks needs quotes"
            )

    def _is_flag(self, word: str) -> bool:
        """Tell whether a word is a flag rather than a value."""
        if self.table.find_spelling(word) is not None:
            return True
        if self.table.equals and any(blank in word for blank in BLANKS):
            # argparse takes "- one thing" for a value, but "--a=one thing" for a flag.
            return is_flag_like(word) and not any(
                blank in word.partition("=")[0] for blank in BLANKS
            )
        return is_flag_like(word)

    def _read_flag(self, word: str) -> None:
        found = self.table.find_spelling(word)
        value: str | None = None
        if found is None and (attached := self.table.find_attached(word)):
            found, value = (attached[0], True), attached[1]
        if found is None and "=" in word:
            name, _, value = word.partition("=")
            found = self.table.find_spelling(name)
        if found is None:
            self._read_unknown(word)
        else:
            flag, affirms = found
            self._set(flag, self._value(flag, word.partition("=")[0], value), affirms=affirms)

    def _set(self, flag: Flag, value: object, *, affirms: bool) -> None:
        if flag.kind is FlagType.BOOL and isinstance(value, bool):
            value = value is affirms
            for name, opposite in self.table.opposites.items():
                if flag.name == name:
                    self.options.pop(opposite, None)
                elif flag.name == opposite:
                    self.options.pop(name, None)
        if flag.kind is FlagType.LIST and isinstance(value, list):
            earlier = self.options.get(flag.name, [])
            value = [*earlier, *value] if isinstance(earlier, list) else value
        self.options[flag.name] = value

    def _value(self, flag: Flag, spelling: str, value: str | None) -> object:
        match flag.kind:
            case FlagType.BOOL:
                if value is None and self.words and self.words[0].lower() in ("true", "false"):
                    value = self.words.popleft()
                switch = True if value is None else flag.read(value)
                if not isinstance(switch, bool):
                    raise WrongArity(f"{spelling} takes no value, got {shown(value)}")
                return switch
            case FlagType.SWITCH if value is None:
                if self.words and self.words[0] in SWITCH_WORDS:
                    return self.words.popleft()
                if not self.words or self._is_flag(self.words[0]):
                    return "on"  # as older versions of the program took it
            case FlagType.LIST if flag.many is Many.SPAN and value is None:
                values: list[object] = []
                while self.words and not self._is_flag(self.words[0]):
                    values.append(flag.read(self.words.popleft()))
                if not values:
                    raise WrongArity(f"{spelling} takes one or more values, but none follows")
                return values
        if flag.bare and value is None and (not self.words or self._is_flag(self.words[0])):
            return True
        if flag.pair:
            first = self._next(flag, spelling) if value is None else value
            second = self._next(flag, spelling)
            if any(blank in first + second for blank in BLANKS):
                raise WrongArity(f"the two values of {spelling} can't have blanks in them")
            return f"{first} {second}"
        read = flag.read(self._next(flag, spelling) if value is None else value)
        if flag.kind is FlagType.LIST:
            return read if isinstance(read, list) else [read]
        return read

    def _next(self, flag: Flag, spelling: str) -> str:
        """Take the word after a flag that must have a value."""
        if not self.words:
            raise WrongArity(f"{spelling} takes a value, but the command ends there")
        following = self.words[0]
        # A program without "--flag=value" takes any following word, even "-x", but no known flag.
        if self.table.find_spelling(following) or (self.table.equals and self._is_flag(following)):
            raise WrongArity(f"{spelling} takes a value, but {shown(following)} follows")
        return self.words.popleft()

    def _read_unknown(self, word: str) -> None:
        name, equals, value = word.partition("=")
        if name.startswith("---") or name in ("-", "--"):
            raise CommandSyntaxError(f"malformed flag: {shown(word)}")
        try:
            key = extra_key(name, "the command")
        except InvalidBackendOptions as error:
            raise CommandSyntaxError(f"malformed flag: {shown(word)}") from error
        times = self.extra.setdefault(key, [])
        if equals:
            times.append(value)
        elif self.words and not self._is_flag(self.words[0]):
            times.append(self.words.popleft())
        else:
            times.append(True)
