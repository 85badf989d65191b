"""Constructors of flags, one for each type of value: a backend's table has one flag a line."""

from __future__ import annotations

from instances.backends.flags import HIGHEST_INT, LOWEST_INT, Flag, FlagType, Many


def boolean(name: str, *aliases: str, no: str = "", spelling: str = "") -> Flag:
    """A bare flag; ``no`` is the flag for false."""
    return Flag(name, FlagType.BOOL, aliases, spelling, negation=no)


def optional_boolean(name: str, *aliases: str) -> Flag:
    """argparse's BooleanOptionalAction: ``--x`` and ``--no-x``."""
    return Flag(name, FlagType.BOOL, aliases, negation="--no-" + name.replace("_", "-"))


def integer(
    name: str,
    *aliases: str,
    words: tuple[str, ...] = (),
    scaled: bool = False,
    low: int = LOWEST_INT,
    high: int = HIGHEST_INT,
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


def json_text(name: str, *aliases: str, other_forms: bool = False) -> Flag:
    return Flag(name, FlagType.JSON, aliases, prose=True, other_forms=other_forms)


def switch(name: str, *aliases: str) -> Flag:
    return Flag(name, FlagType.SWITCH, aliases)


def repeated(name: str, *aliases: str, prose: bool = False) -> Flag:
    return Flag(name, FlagType.LIST, aliases, many=Many.REPEAT, prose=prose)


def span(name: str, *aliases: str, secret: bool = False) -> Flag:
    return Flag(name, FlagType.LIST, aliases, many=Many.SPAN, secret=secret)


def array(name: str, *aliases: str) -> Flag:
    return Flag(name, FlagType.LIST, aliases, many=Many.ARRAY)
