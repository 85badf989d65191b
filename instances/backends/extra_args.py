"""``extra_args``: flags that a backend's table does not know, in JSON and on a command line.

The form is the seed's: a flag's name with underscores, and the flag's value as text. ``"true"`` (or
``""``) is a bare flag. Two cases need a list, so that every command line has a form: a flag that is
given more than once, and a value that is literally ``true`` or empty::

    --foo-bar                {"foo_bar": "true"}
    --foo-bar x              {"foo_bar": "x"}
    --foo x --foo y          {"foo": ["x", "y"]}
    --foo --foo x            {"foo": [true, "x"]}
    --foo true               {"foo": ["true"]}
    -z 5                     {"-z": "5"}           (one dash is kept, two are understood)
    --json.some_key 5        {"json.some_key": "5"} (after a period a name is kept as it is)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from instances.backends.flags import FlagTable
from instances.backends.values import (
    InvalidBackendOptions,
    as_text,
    check_characters,
    is_flag_like,
    shown,
)

Bare = Literal[True]
ExtraValue = str | list[str | Bare]

_KEY = re.compile(r"-?[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\+?", re.ASCII)


def extra_key(name: str, label: str) -> str:
    """Return the normal form of a flag's name: ``--foo-bar`` → ``foo_bar``, ``-z`` stays ``-z``.

    Raises InvalidBackendOptions for text that is no flag's name.
    """
    key = name[2:] if name.startswith("--") else name
    if name.startswith("---") or not _KEY.fullmatch(key):
        raise InvalidBackendOptions(
            f"{label}: {shown(name)} is no name of a flag (at most 100 letters, digits, '_', '-'"
            " and '.', beginning with a letter or digit)"
        )
    if key.startswith("-"):
        return key
    name, period, rest = key.partition(".")
    return name.replace("-", "_") + period + rest


def extra_spelling(key: str) -> str:
    """Return the flag of a normal key: the inverse of ``extra_key``."""
    if key.startswith("-"):
        return key
    name, period, rest = key.partition(".")
    return "--" + name.replace("_", "-") + period + rest


def given_times(value: object, table: FlagTable, label: str) -> list[str | Bare]:
    """Turn a value from JSON into a list with one item for each time that the flag is given.

    Numbers become text, and objects become JSON text. Null and false give an empty list: the flag
    is not given. Raises InvalidBackendOptions.
    """
    literal = isinstance(value, list)
    times: list[str | Bare] = []
    for item in value if isinstance(value, list) else [value]:
        if item is None or item is False:
            continue
        if item is True or (not literal and item in ("", "true")):
            times.append(True)
            continue
        text = None if isinstance(item, list) else as_text(item)
        if text is None:
            raise InvalidBackendOptions(
                f"{label} must be a text, a number, a boolean or a list of these, got {shown(item)}"
            )
        check_characters(text, label, prose=True)
        if text == "--" or (not table.equals and is_flag_like(text)):
            # llama-server would take the text as the value, but a reader of the command line (such
            # as our parser) can't tell the text from a flag. argparse drops every "--".
            raise InvalidBackendOptions(
                f"{label} must not begin with a dash (it would be taken for a flag), got"
                f" {shown(text)}"
            )
        times.append(text)
    return times


def normal_value(times: Sequence[str | Bare]) -> ExtraValue:
    """Return the shortest form of the times that a flag is given; at least one time."""
    if len(times) == 1:
        only = times[0]
        if only is True:
            return "true"
        if only not in ("", "true"):
            return only
    return list(times)


def extra_argv(key: str, value: ExtraValue, table: FlagTable) -> list[str]:
    """Build the words for one entry of ``extra_args`` in normal form."""
    times: list[str | Bare]
    times = value if isinstance(value, list) else [value] if value != "true" else [True]
    spelling = extra_spelling(key)
    words: list[str] = []
    for time in times:
        words += table.joined(spelling, [] if time is True else [time])
    return words
