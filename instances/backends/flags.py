"""What does one flag of a backend program look like, as an option and on a command line?

A ``Flag`` is one row of a backend's table. It says the option's name, the type of its value and how
the program takes it. ``Flag.check`` brings a value from JSON into its normal form, ``Flag.read``
does so with the words of a command line, and ``Flag.argv`` turns the normal form into words again.

The normal form holds exactly what the program is told: what means nothing (null, an empty text or
list, ``false`` for a flag that can't be negated) is no value at all, ``None``.
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
    read_number,
    shown,
)

Setting = bool | int | float | str | list[str]
"""A value in its normal form."""

_SCALED_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?[kKmMgGtT]", re.ASCII)
_INT_LOW, _INT_HIGH = -(2**63), 2**64 - 1


class FlagType(Enum):
    """The type of a flag's value."""

    BOOL = auto()
    INT = auto()
    FLOAT = auto()
    TEXT = auto()
    JSON = auto()
    """Text that the program reads as JSON; objects and lists are accepted and made compact."""
    SWITCH = auto()
    """``on``, ``off`` or ``auto``; true and false are accepted, and a bare flag means ``on``."""
    LIST = auto()


class Many(Enum):
    """How a program takes several values of one flag."""

    REPEAT = auto()
    """``--x a --x b``"""
    SPAN = auto()
    """``--x a b`` (argparse's ``nargs="+"``: of repeated flags the last would win)"""
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
    """Other spellings, with their dashes. Without them they are accepted in JSON as well."""
    spelling: str = ""
    """What is sent; ``--`` and the name in kebab-case unless said otherwise."""
    negation: str = ""
    """The flag that says false, for a BOOL that has one."""
    many: Many = Many.REPEAT
    """For a LIST."""
    commas: bool = False
    """TEXT that holds several values with commas between them; a JSON list is accepted, too."""
    words: tuple[str, ...] = ()
    """Words that an INT takes beside numbers, such as ``auto``."""
    scaled: bool = False
    """An INT that may also be written ``32k`` or ``1.5M``."""
    bare: bool = False
    """TEXT whose value may be left out; true means that."""
    pair: bool = False
    """TEXT that is two words, each an argument of its own: ``--range START END``."""
    prose: bool = False
    """TEXT that may have line breaks and tabs, such as a chat template."""
    secret: bool = False
    """Its value is not repeated in error messages."""
    low: int = _INT_LOW
    high: int = _INT_HIGH
    attached: bool = False
    """The value may follow its one-letter alias without a blank: ``-O3``."""

    def __post_init__(self) -> None:
        if not self.spelling:
            object.__setattr__(self, "spelling", "--" + self.name.replace("_", "-"))

    # -- JSON → normal form -----------------------------------------------------------------------

    def check(self, value: object, label: str) -> Setting | None:
        """The normal form of a value from JSON, ``None`` where it says nothing.

        ``label`` is what an error calls the option. Raises InvalidBackendOptions.
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
            or (isinstance(value, int) and not _INT_LOW <= value <= _INT_HIGH)
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
        if self.pair and value:
            words = value.split()
            if len(words) != 2:
                raise self.refusal(label, value, "two values with a blank between them")
            value = " ".join(words)
        return value or None

    def _check_characters(self, text: str, label: str) -> None:
        check_characters(text, label, prose=self.prose, secret=self.secret)

    def refusal(self, label: str, value: object, rule: str) -> InvalidBackendOptions:
        """The error for a value that is not what ``rule`` says."""
        return InvalidBackendOptions(
            f"{label} must be {rule}, got {'(hidden)' if self.secret else shown(value)}"
        )

    # -- words of a command line → what check() takes ---------------------------------------------

    def read(self, word: str) -> object:
        """What a word of a command line says: a number where it is one, else the text."""
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
        """The words after each time the flag is given; an empty inner list is a bare flag.

        ``false`` is not for here: it has a flag of its own, or none.
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


# -- one flag per line: the constructors that the tables are written with --------------------------


def boolean(name: str, *aliases: str, no: str = "", spelling: str = "") -> Flag:
    """A bare flag; ``no`` is the flag that says false."""
    return Flag(name, FlagType.BOOL, aliases, spelling, negation=no)


def optional_boolean(name: str, *aliases: str) -> Flag:
    """argparse's BooleanOptionalAction: ``--x`` and ``--no-x``."""
    return Flag(name, FlagType.BOOL, aliases, negation="--no-" + name.replace("_", "-"))


def integer(
    name: str,
    *aliases: str,
    words: tuple[str, ...] = (),
    scaled: bool = False,
    low: int = _INT_LOW,
    high: int = _INT_HIGH,
    attached: bool = False,
) -> Flag:
    return Flag(
        name,
        FlagType.INT,
        aliases,
        words=words,
        scaled=scaled,
        low=low,
        high=high,
        attached=attached,
    )


def number(name: str, *aliases: str) -> Flag:
    return Flag(name, FlagType.FLOAT, aliases)


def text(
    name: str,
    *aliases: str,
    commas: bool = False,
    bare: bool = False,
    pair: bool = False,
    prose: bool = False,
    secret: bool = False,
) -> Flag:
    return Flag(
        name,
        FlagType.TEXT,
        aliases,
        commas=commas,
        bare=bare,
        pair=pair,
        prose=prose,
        secret=secret,
    )


def json_text(name: str, *aliases: str) -> Flag:
    return Flag(name, FlagType.JSON, aliases, prose=True)


def switch(name: str, *aliases: str) -> Flag:
    return Flag(name, FlagType.SWITCH, aliases)


def repeated(name: str, *aliases: str, prose: bool = False) -> Flag:
    return Flag(name, FlagType.LIST, aliases, many=Many.REPEAT, prose=prose)


def span(name: str, *aliases: str, secret: bool = False) -> Flag:
    return Flag(name, FlagType.LIST, aliases, many=Many.SPAN, secret=secret)


def array(name: str, *aliases: str) -> Flag:
    return Flag(name, FlagType.LIST, aliases, many=Many.ARRAY)


# -- tables ---------------------------------------------------------------------------------------


class FlagTable:
    """The flags of one program, in the order in which they are sent.

    ``equals`` says that the program takes ``--flag=value`` (argparse does). Then a value that
    begins with a dash is sent so; a program that doesn't takes the next word whatever it is.
    """

    def __init__(self, flags: Sequence[Flag], *, equals: bool) -> None:
        self.equals = equals
        self.flags: dict[str, Flag] = {}
        self.opposites: dict[str, str] = {}
        """``mmap`` → ``no_mmap``, where saying no is an option of its own."""
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
        """The flag that a JSON key means, and whether the key affirms it; ``None`` if unknown."""
        if key.startswith("-"):
            return self.find_spelling(key)
        return self._by_key.get(key) or self._by_key.get(key.replace("-", "_"))

    def find_spelling(self, word: str) -> tuple[Flag, bool] | None:
        """The flag that a word of a command line spells, ``--like_this`` included."""
        found = self._by_spelling.get(word)
        if found is None and word.startswith("--"):
            found = self._by_spelling.get(word.replace("_", "-"))
        return found

    def find_attached(self, word: str) -> tuple[Flag, str] | None:
        """``-O3`` → the flag of ``-O`` and ``3``."""
        flag = self._attached.get(word[:2])
        if flag is None or len(word) < 3 or not word[2:].isalnum():
            return None
        return flag, word[2:]

    def argv(self, options: Mapping[str, Setting]) -> list[str]:
        """The words that tell the program ``options`` (known names, normal form)."""
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
        """A flag and the values of one time that it is given."""
        if self.equals and len(values) == 1 and values[0].startswith("-"):
            return [f"{spelling}={values[0]}"]
        return [spelling, *values]


def _key_of(spelling: str) -> str:
    """``--n-gpu-layers`` → ``n_gpu_layers``, ``-ngl`` → ``ngl``."""
    return spelling.lstrip("-").replace("-", "_")
