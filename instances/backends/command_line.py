"""Which options does a pasted command line mean?

The inverse of building one: ``split`` reads words as a POSIX shell would (but expands nothing and
runs nothing), ``parse`` takes off environment, program and subcommand and reads the flags.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from instances.backends.extra_args import Bare, extra_key, normal_value
from instances.backends.flags import SWITCH_WORDS, Flag, FlagTable, FlagType, Many
from instances.backends.values import InvalidBackendOptions, is_flag_like, shown
from llamactl.core.errors import LlamactlError

MAX_COMMAND_LENGTH = 64 * 1024

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.ASCII | re.DOTALL)
_PYTHON = re.compile(r"python[0-9.]*", re.ASCII)
_BLANK = " \t\r\n"
_SHELL_SYNTAX = frozenset({"|", "||", "&", "&&", ";", "<", ">", ">>", "1>", "2>", "2>&1", "&>"})


class CommandError(LlamactlError):
    """A pasted command line can't be made into options."""

    code = "parse_error"
    status = 400


class EmptyCommand(CommandError):
    """There is nothing in it."""

    code = "invalid_command"

    def __init__(self) -> None:
        super().__init__("Command cannot be empty")


class CommandSyntaxError(CommandError):
    """It is no command line: an open quote, ``---flag``, NUL, too long, a pipe."""


class WrongArity(CommandError):
    """A flag that takes a value stands alone, or one that takes none has one."""


class WrongCommand(CommandError):
    """It starts something else than the backend's server, or has words that belong to nothing."""


@dataclass(frozen=True)
class ParsedCommand:
    """What a command line says."""

    backend_options: dict[str, object]
    environment: dict[str, str] = field(default_factory=dict)
    """The assignments before the program: ``CUDA_VISIBLE_DEVICES=0 llama-server …``."""


@dataclass(frozen=True)
class Programs:
    """What the commands of a backend may begin with, in lower case."""

    commands: tuple[tuple[str, ...], ...]
    """A program and its subcommand, the longest first."""
    modules: tuple[tuple[str, ...], ...] = ()
    """The same after ``python -m``."""
    need_flags: frozenset[tuple[str, ...]] = frozenset()
    """Those of ``commands`` after which a word would be some other subcommand."""

    def describe(self) -> str:
        return " or ".join(f"'{' '.join(words)}'" for words in self.commands[:2])


# -- words ----------------------------------------------------------------------------------------


def split(command: str) -> list[str]:
    """The words of a command line, by the rules of a POSIX shell.

    Quotes, backslashes, continued lines and comments are understood. ``$``, ``~`` and ``*`` are
    characters like others: what the shell would make of them is unknown here.

    Raises CommandSyntaxError.
    """
    words: list[str] = []
    characters = iter(command)
    word: list[str] | None = None
    quoted = False
    for character in characters:
        if character in _BLANK:
            if word is not None:
                words.append(_finished("".join(word), quoted=quoted))
                word, quoted = None, False
            continue
        if character == "#" and word is None:
            for character in characters:
                if character == "\n":
                    break
            continue
        if character == "\\":
            following = next(characters, "\n")
            if following == "\r":  # a line break that was copied on Windows
                following = next(characters, "\n")
            if following != "\n":
                word = [*(word or []), following]
                quoted = True
            continue
        if word is None:
            word = []
        if character == "'":
            word += _until_quote(characters)
            quoted = True
        elif character == '"':
            word += _until_double_quote(characters)
            quoted = True
        else:
            word.append(character)
    if word is not None:
        words.append(_finished("".join(word), quoted=quoted))
    return words


def _finished(word: str, *, quoted: bool) -> str:
    if not quoted and word in _SHELL_SYNTAX:
        raise CommandSyntaxError(
            f"{word!r} is for a shell, and llamactl starts programs without one; leave it out, or"
            " quote it if it is a value"
        )
    return word


def _until_quote(characters: Iterator[str]) -> Iterable[str]:
    for character in characters:
        if character == "'":
            return
        yield character
    raise CommandSyntaxError("unterminated quoted string: a ' is never closed")


def _until_double_quote(characters: Iterator[str]) -> Iterable[str]:
    for character in characters:
        if character == '"':
            return
        if character == "\\":
            following = next(characters, "")
            if following not in ('"', "\\", "$", "`", "\n"):
                yield character
            if following != "\n":
                yield following
        else:
            yield character
    raise CommandSyntaxError('unterminated quoted string: a " is never closed')


# -- options --------------------------------------------------------------------------------------


def parse(command: str, table: FlagTable, programs: Programs) -> ParsedCommand:
    """The options that ``command`` gives the program of ``table``, not yet in normal form.

    1. Words are split off; environment, program and subcommand are taken from the front.
    2. A known flag takes as many words as its row says; of one that is repeated the last counts,
       unless it is a list.
    3. An unknown flag takes the next word, unless that is a flag itself; all go to ``extra_args``.
    4. One word that belongs to no flag is the model.

    Raises CommandError.
    """
    if not command.strip():
        raise EmptyCommand
    if len(command) > MAX_COMMAND_LENGTH:
        raise CommandSyntaxError(
            f"the command must have at most {MAX_COMMAND_LENGTH} characters, got {len(command)}"
        )
    if "\x00" in command:
        raise CommandSyntaxError("the command must not contain NUL characters")
    words = deque(split(command))
    environment = _take_environment(words)
    recognised = _take_program(words, programs)
    reader = _Reader(table, words, recognised=recognised, programs=programs)
    return ParsedCommand(reader.read(), environment)


def _take_environment(words: deque[str]) -> dict[str, str]:
    environment: dict[str, str] = {}
    while words:
        if match := _ASSIGNMENT.fullmatch(words[0]):
            environment[match[1]] = match[2]
        elif words[0] not in ("env", "export"):
            return environment
        words.popleft()
    raise EmptyCommand


def _take_program(words: deque[str], programs: Programs) -> bool:
    """Take program and subcommand off the front; whether there was a program."""
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
    """Reads the flags of one command line."""

    def __init__(
        self, table: FlagTable, words: deque[str], *, recognised: bool, programs: Programs
    ) -> None:
        self.table = table
        self.words = words
        self.programs = programs
        self.recognised = recognised
        self.options: dict[str, object] = {}
        self.extra: dict[str, list[str | Bare]] = {}
        self.strays: list[str] = []

    def read(self) -> dict[str, object]:
        stray_first = bool(self.words) and not self.recognised and not self._is_flag(self.words[0])
        while self.words:
            word = self.words.popleft()
            if self._is_flag(word):
                self._read_flag(word)
            else:
                self.strays.append(word)
        if stray_first and ("model" in self.options or len(self.strays) > 1):
            raise WrongCommand(
                f"{shown(self.strays[0])} is not the program of this backend; expected"
                f" {self.programs.describe()}"
            )
        self._read_model()
        if self.extra:
            self.options["extra_args"] = {
                key: normal_value(times) for key, times in self.extra.items()
            }
        return self.options

    def _read_model(self) -> None:
        if not self.strays:
            return
        model, *others = self.strays
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
        """Whether a word is a flag rather than a value."""
        if self.table.find_spelling(word) is not None:
            return True
        if self.table.equals and any(blank in word for blank in _BLANK):
            # argparse takes "- one thing" for a value, but "--a=one thing" for a flag
            return is_flag_like(word) and not any(
                blank in word.partition("=")[0] for blank in _BLANK
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
                said = True if value is None else flag.read(value)
                if not isinstance(said, bool):
                    raise WrongArity(f"{spelling} takes no value, got {shown(value)}")
                return said
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
            if any(blank in first + second for blank in _BLANK):
                raise WrongArity(f"the two values of {spelling} can't have blanks in them")
            return f"{first} {second}"
        read = flag.read(self._next(flag, spelling) if value is None else value)
        if flag.kind is FlagType.LIST:
            return read if isinstance(read, list) else [read]
        return read

    def _next(self, flag: Flag, spelling: str) -> str:
        """The word after a flag that must have one."""
        if not self.words:
            raise WrongArity(f"{spelling} takes a value, but the command ends there")
        following = self.words[0]
        # A program without "--flag=value" takes whatever follows, "-x" too, unless it's a flag.
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
