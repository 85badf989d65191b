"""Normal form of backend options: canonical names and checked values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

from instances.backends.extra_args import (
    Bare,
    ExtraValue,
    extra_key,
    given_times,
    normal_value,
)
from instances.backends.flags import Flag, FlagTable, FlagType, Setting
from instances.backends.values import InvalidBackendOptions, shown

Label = Callable[[Flag], str]
"""The name of a flag's option in error messages."""


def normal_form(raw: Mapping[str, object], table: FlagTable, label: Label) -> dict[str, object]:
    """Bring the options of a request, or of a command line, into normal form.

    Raises InvalidBackendOptions.
    """
    options = _Options(table, label)
    unknown: list[tuple[str, object]] = []
    for key, value in raw.items():
        if key == "extra_args":
            continue
        found = table.find(key)
        if found is None:
            unknown.append((key, value))
        else:
            options.put(found, value)
    given = raw.get("extra_args")
    if given is not None and not isinstance(given, Mapping):
        raise InvalidBackendOptions(
            "backend_options.extra_args must be an object of flags and their values, got"
            f" {shown(given)}"
        )
    extra = options.put_extra([*unknown, *(given or {}).items()])
    options.check_opposites()
    normal = cast("dict[str, object]", options.settings)
    if extra:
        normal["extra_args"] = extra
    return normal


class _Options:
    """The options that were put so far, in normal form."""

    def __init__(self, table: FlagTable, label: Label) -> None:
        self.table = table
        self.label = label
        self.settings: dict[str, Setting] = {}

    def put(self, found: tuple[Flag, bool], value: object) -> None:
        """Check a value and store it under the option's canonical name."""
        flag, affirms = found
        label = self.label(flag)
        setting = flag.check(value, label)
        if isinstance(setting, bool) and flag.kind is FlagType.BOOL:
            setting = setting is affirms
            if setting is False:
                if flag.name in self.table.opposites:
                    flag, setting = self.table.flags[self.table.opposites[flag.name]], True
                elif not flag.negation:
                    return
        if setting is None or (flag.name == "port" and setting == 0):
            return
        if setting is not False:
            self._refuse_flags_as_values(flag, setting, label)
        settings = self.settings
        if flag.name in settings and settings[flag.name] != setting:
            raise InvalidBackendOptions(
                f"{label} is given twice: {shown(settings[flag.name])} and {shown(setting)}"
                if not flag.secret
                else f"{label} is given twice, with different values"
            )
        settings[flag.name] = setting

    def _refuse_flags_as_values(self, flag: Flag, setting: Setting, label: str) -> None:
        """Refuse values that a program would take for a flag.

        A program without ``--flag=value`` can't tell such a value from the flag, and argparse drops
        ``--`` wherever ``--`` stands.
        """
        for word in (word for words in flag.words_of(setting) for word in words):
            taken = not self.table.equals and self.table.find_spelling(word) is not None
            if taken or word == "--":
                raise InvalidBackendOptions(f"{label} must be a value, got the flag {word}")

    def put_extra(self, given: Iterable[tuple[str, object]]) -> dict[str, ExtraValue]:
        """Store the known flags among ``given``; return the others as ``extra_args``."""
        extra: dict[str, ExtraValue] = {}
        for name, value in given:
            field = f"backend_options.extra_args.{str(name)[:80]}"
            key = extra_key(name, field)
            times = given_times(value, self.table, field)
            if not times:
                continue
            found = self.table.find(key)
            if found is not None:
                self.put(found, _value_of_times(found[0], times))
            elif key in extra and extra[key] != normal_value(times):
                raise InvalidBackendOptions(f"{field} is given twice, with different values")
            else:
                extra[key] = normal_value(times)
        return extra

    def check_opposites(self) -> None:
        """Refuse an option together with its opposite, such as ``mmap`` and ``no_mmap``."""
        for name, opposite in self.table.opposites.items():
            if self.settings.get(name) is True and self.settings.get(opposite) is True:
                raise InvalidBackendOptions(
                    f"backend_options.{name} and backend_options.{opposite} contradict each other"
                )


def _value_of_times(flag: Flag, times: list[str | Bare]) -> object:
    """The value of a known flag that was given in ``extra_args``; the last time counts."""
    values = [True if time is True else flag.read(time) for time in times]
    return values if flag.kind is FlagType.LIST and True not in values else values[-1]
