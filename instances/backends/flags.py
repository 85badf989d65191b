"""Flags of a backend's program: as options in JSON and as words of a command line.

A ``Flag`` is one row of a backend's table: the option's name, the type of its value and how the
program takes the value. ``Flag.check`` brings a value from JSON into normal form, ``Flag.read``
reads a word of a command line, and ``Flag.words_of`` turns the normal form into words again.

The normal form holds exactly what the program is told. A value that means nothing to the program
(null, an empty text or list, ``false`` for a flag without negation) has the normal form ``None``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from instances.backends.values import (
    LARGEST_EXACT,
    WHOLE_NUMBER,
    InvalidBackendOptions,
    as_text,
    check_characters,
    is_flag_like,
    json_problem,
    read_number,
    shown,
)

Setting = bool | int | float | str | list[str]
"""A value in normal form."""

_SCALED_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?[kKmMgGtT]", re.ASCII)
LOWEST_INT, HIGHEST_INT = -(2**63), 2**64 - 1


class FlagType(Enum):
    """The type of a flag's value."""

    BOOL = auto()
    INT = auto()
    FLOAT = auto()
    TEXT = auto()
    JSON = auto()
    """Text that the program reads as JSON. Objects and lists are accepted, and made compact."""
    SWITCH = auto()
    """``on``, ``off`` or ``auto``. True and false are accepted; a bare flag means ``on``."""
    LIST = auto()


class Many(Enum):
    """How a program takes several values of one flag."""

    REPEAT = auto()
    """``--x a --x b``"""
    SPAN = auto()
    """``--x a b``: argparse's ``nargs="+"``, with which a repeated flag replaces the one before"""
    ARRAY = auto()
    """``--x '["a","b"]'``"""


SWITCH_WORDS = frozenset(
    {"on", "off", "auto", "true", "false", "enabled", "disabled", "enable", "disable", "1", "0"}
)


@dataclass(frozen=True, slots=True)
class Flag:
    """One option of a backend program."""

    name: str
    """The option's name in JSON: snake_case, the seed's where the seed has it."""
    kind: FlagType
    aliases: tuple[str, ...] = ()
    """Other spellings, with their dashes. JSON may use an alias without the dashes."""
    spelling: str = ""
    """The word on the command line; by default ``--`` and the name in kebab-case."""
    negation: str = ""
    """The flag for false, for a BOOL that has one: ``--no-mmap``."""
    many: Many = Many.REPEAT
    """How the program takes the values of a LIST."""
    commas: bool = False
    """TEXT with commas between several values; a JSON list is accepted too."""
    words: tuple[str, ...] = ()
    """Words that an INT takes besides numbers, such as ``auto``."""
    scaled: bool = False
    """An INT that may also be written ``32k`` or ``1.5M``."""
    bare: bool = False
    """TEXT whose value may be left out, which is ``true`` in JSON."""
    pair: bool = False
    """TEXT of two words, each an argument of its own: ``--range START END``."""
    prose: bool = False
    """TEXT that may have line breaks and tabs, such as a chat template."""
    secret: bool = False
    """Whether error messages hide the value."""
    other_forms: bool = False
    """Whether the program takes this JSON in other forms too, such as ``image=16,video=2``."""
    low: int = LOWEST_INT
    high: int = HIGHEST_INT
    attached: bool = False
    """Whether the value may follow the one-letter alias without a blank: ``-O3``."""

    def __post_init__(self) -> None:
        if not self.spelling:
            object.__setattr__(self, "spelling", "--" + self.name.replace("_", "-"))

    # -- JSON → normal form -----------------------------------------------------------------------

    def check(self, value: object, label: str) -> Setting | None:
        """Return the normal form of a value from JSON; ``None`` for a value that means nothing.

        ``label`` is the option's name in an error. Raises InvalidBackendOptions.
        """
        if value is None:
            return None
        match self.kind:
            case FlagType.BOOL:
                if not isinstance(value, bool):
                    raise self.refusal(label, value, "true or false")
                return value
            case FlagType.INT:
                return self._check_int(value, label)
            case FlagType.FLOAT:
                return self._check_float(value, label)
            case FlagType.SWITCH:
                return self._check_switch(value, label)
            case FlagType.LIST:
                return self._check_list(value, label)
            case FlagType.TEXT | FlagType.JSON:
                return self._check_text(value, label)

    def _check_int(self, value: object, label: str) -> int | str | None:
        if isinstance(value, str):
            if value == "":
                return None
            if value in self.words or (self.scaled and _SCALED_NUMBER.fullmatch(value)):
                return value
        elif isinstance(value, float) and value.is_integer():
            value = int(value)  # JavaScript writes 1e3; JSON has one kind of number
        if isinstance(value, bool) or not isinstance(value, int):
            forms = ["a whole number", *(["one like 32k"] if self.scaled else []), *self.words]
            raise self.refusal(label, value, " or ".join(forms))
        if not self.low <= value <= self.high:
            raise self.refusal(label, value, f"between {self.low} and {self.high}")
        return value

    def _check_float(self, value: object, label: str) -> int | float | None:
        if value == "":
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or (isinstance(value, int) and not LOWEST_INT <= value <= HIGHEST_INT)
            or (isinstance(value, float) and not math.isfinite(value))
        ):
            raise self.refusal(label, value, "a finite number")
        return float(value) if abs(value) > LARGEST_EXACT else value

    def _check_switch(self, value: object, label: str) -> str | None:
        if isinstance(value, bool):
            return "on" if value else "off"
        if value == "":
            return None
        if not isinstance(value, str) or value not in SWITCH_WORDS:
            raise self.refusal(label, value, "on, off or auto")
        return value

    def _check_list(self, value: object, label: str) -> list[str] | None:
        items = value if isinstance(value, list) else [value]
        texts = []
        for item in items:
            if isinstance(item, bool) or not isinstance(item, (str, int, float, dict)):
                raise self.refusal(label, item, "a list of texts")
            text = as_text(item)
            if text is None:
                raise self.refusal(label, item, "a list of texts")
            if text:
                self._check_characters(text, label)
                texts.append(text)
            if self.many is Many.SPAN and is_flag_like(text):
                raise self.refusal(label, text, "a list of texts that don't begin with a dash")
        return texts or None

    def _check_text(self, value: object, label: str) -> str | bool | None:
        if self.bare and isinstance(value, bool):
            return value or None
        if self.kind is FlagType.JSON and isinstance(value, (dict, list)):
            value = as_text(value) or value
        elif (
            (self.commas or self.pair)
            and isinstance(value, list)
            and all(isinstance(part, (str, int, float)) for part in value)
        ):
            value = (" " if self.pair else ",").join(as_text(part) or "" for part in value)
        if not isinstance(value, str):
            rule = "an object or its JSON text" if self.kind is FlagType.JSON else "a text"
            raise self.refusal(label, value, rule)
        self._check_characters(value, label)
        if self.kind is FlagType.JSON and value:
            self._check_json(value, label)
        if self.pair and value:
            words = value.split()
            if len(words) != 2:
                raise self.refusal(label, value, "two values with a blank between them")
            value = " ".join(words)
        return value or None

    def _check_json(self, value: str, label: str) -> None:
        """Refuse a value that the program could only answer by ending at its start."""
        if self.other_forms and not value.lstrip().startswith(("{", "[")):
            return
        if problem := json_problem(value):
            raise self.refusal(label, value, f"JSON ({problem})")

    def _check_characters(self, text: str, label: str) -> None:
        check_characters(text, label, prose=self.prose, secret=self.secret)

    def refusal(self, label: str, value: object, rule: str) -> InvalidBackendOptions:
        """Return the error for a value that breaks ``rule``, the end of "must be …"."""
        return InvalidBackendOptions(
            f"{label} must be {rule}, got {'(hidden)' if self.secret else shown(value)}"
        )

    # -- words of a command line → JSON -----------------------------------------------------------

    def read(self, word: str) -> object:
        """Read a word of a command line: a number if the flag takes one, else the text."""
        match self.kind:
            case FlagType.BOOL:
                return {"true": True, "false": False}.get(word.lower(), word)
            case FlagType.INT:
                return int(word) if WHOLE_NUMBER.fullmatch(word) else word
            case FlagType.FLOAT:
                return read_number(word)
            case FlagType.LIST if self.many is Many.ARRAY and word.startswith("["):
                try:
                    return json.loads(word)
                except (ValueError, RecursionError):
                    return word
            case _:
                return word

    # -- normal form → words of a command line ----------------------------------------------------

    def words_of(self, value: Setting) -> list[list[str]]:
        """Return the words after each time the flag is given; an empty inner list is a bare flag.

        Not for ``false``, which has a flag of its own, or none.
        """
        if value is True:
            return [[]]
        if isinstance(value, list):
            match self.many:
                case Many.REPEAT:
                    return [[text] for text in value]
                case Many.SPAN:
                    return [value]
                case Many.ARRAY:
                    return [[as_text(value) or "[]"]]
        text = as_text(value)
        if text is None:
            raise ValueError(f"{self.name}: {shown(value)} is no setting")
        return [text.split(" ")] if self.pair else [[text]]


class FlagTable:
    """The flags of one program, in the order of the command lines that we build.

    ``equals``: whether the program takes ``--flag=value``, as argparse does. Only then is a value
    that begins with a dash written so; other programs take the next word, even with a dash.
    """

    def __init__(self, flags: Sequence[Flag], *, equals: bool) -> None:
        self.equals = equals
        self.flags: dict[str, Flag] = {}
        self.opposites: dict[str, str] = {}
        """``mmap`` → ``no_mmap``, where the negation is an option of its own."""
        self._by_spelling: dict[str, tuple[Flag, bool]] = {}
        self._by_key: dict[str, tuple[Flag, bool]] = {}
        self._attached: dict[str, Flag] = {}
        for flag in flags:
            if flag.name in self.flags:
                raise ValueError(f"{flag.name} is in the table twice")
            self.flags[flag.name] = flag
            self._by_key[flag.name] = (flag, True)
        for flag in flags:
            kebab = "--" + flag.name.replace("_", "-")
            for spelling in dict.fromkeys((flag.spelling, kebab, *flag.aliases)):
                if spelling in self._by_spelling:
                    raise ValueError(f"{spelling} is in the table twice")
                self._by_spelling[spelling] = (flag, True)
                self._by_key.setdefault(_key_of(spelling), (flag, True))
                if flag.attached and len(spelling) == 2:
                    self._attached[spelling] = flag
        for flag in flags:
            if not flag.negation:
                continue
            own = self._by_spelling.setdefault(flag.negation, (flag, False))
            if own[0] is flag:
                self._by_key.setdefault(_key_of(flag.negation), own)
            else:
                self.opposites[flag.name] = own[0].name

    def find(self, key: str) -> tuple[Flag, bool] | None:
        """Find the flag of a JSON key, and whether the key affirms it; ``None`` if unknown."""
        if key.startswith("-"):
            return self.find_spelling(key)
        return self._by_key.get(key) or self._by_key.get(key.replace("-", "_"))

    def find_spelling(self, word: str) -> tuple[Flag, bool] | None:
        """Find the flag of a word of a command line, ``--like_this`` included."""
        found = self._by_spelling.get(word)
        if found is None and word.startswith("--"):
            found = self._by_spelling.get(word.replace("_", "-"))
        return found

    def find_attached(self, word: str) -> tuple[Flag, str] | None:
        """Find the flag of ``-O3``: that of ``-O``, and the value ``3``."""
        flag = self._attached.get(word[:2])
        if flag is None or len(word) < 3 or not word[2:].isalnum():
            return None
        return flag, word[2:]

    def argv(self, options: Mapping[str, Setting]) -> list[str]:
        """Build the words of a command line for ``options`` (known names, normal form)."""
        words: list[str] = []
        for name, flag in self.flags.items():
            value = options.get(name)
            if value is None:
                continue
            if value is False:
                if flag.negation:
                    words.append(flag.negation)
                continue
            for values in flag.words_of(value):
                words += self.joined(flag.spelling, values)
        return words

    def joined(self, spelling: str, values: list[str]) -> list[str]:
        """Join a flag and the values that follow the flag once."""
        if self.equals and len(values) == 1 and values[0].startswith("-"):
            return [f"{spelling}={values[0]}"]
        return [spelling, *values]


def _key_of(spelling: str) -> str:
    """``--n-gpu-layers`` → ``n_gpu_layers``, ``-ngl`` → ``ngl``."""
    return spelling.lstrip("-").replace("-", "_")
