"""Flags of llama-server, read into settings of xllamacpp's parameters.

``flags.txt`` is the table: a line a flag, with its names, the kind of its value, the attribute of
``xllamacpp.CommonParams`` that the value sets, and its environment variable. Names, meanings and
defaults are those of llama-server (``common/arg.cpp`` in llama.cpp).

Left out: tools, agents and MCP servers, whose helper processes would outlive a stop; the router,
which xllamacpp does not have; and flags that xllamacpp's parameters can't hold (``--device``,
``--override-kv``, ``--logit-bias``, control vectors, details of some samplers).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from .kinds import FLASH, KINDS, SWITCH, Kind, Member
    from .setters import SETTERS, Setter, assign, enum_of
    from .start_error import StartError
else:
    from kinds import FLASH, KINDS, SWITCH, Kind, Member
    from setters import SETTERS, Setter, assign, enum_of
    from start_error import StartError

INSTALL_HINT = (
    "The embedded llama.cpp server knows the common flags; for all of them install llama-server "
    "or set backends.llama-cpp.command."
)


@dataclass(frozen=True, slots=True)
class Flag:
    """A line of ``flags.txt``."""

    names: tuple[str, ...]
    off: tuple[str, ...]
    """Names that switch the flag off."""
    kind: Kind
    setter: Setter
    paths: tuple[str, ...]
    variable: str
    """The environment variable of the flag, or an empty text."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A flag with its value; ``name`` is the flag's or variable's name as the user wrote it."""

    name: str
    flag: Flag
    value: Any

    def apply(self, params: Any) -> None:
        """Set the value in a ``CommonParams``. Raises StartError for a refused value."""
        many = isinstance(self.value, list)
        try:
            value = [_resolve(one) for one in self.value] if many else _resolve(self.value)
            for path in self.flag.paths:
                self.flag.setter(params, path, value)
        except (ValueError, TypeError, OverflowError) as refusal:
            raise StartError(f"invalid value for {self.name}: {refusal}.") from refusal
        except (AttributeError, KeyError) as missing:
            raise StartError(
                f"unknown argument to this xllamacpp: {self.name} ({missing})"
            ) from missing


def _resolve(value: Any) -> Any:
    return enum_of(value.enum)[value.name] if isinstance(value, Member) else value


def read_table(table: str) -> Iterator[Flag]:
    for line in table.splitlines():
        if not line or line.startswith("#"):
            continue
        names, kind, target, variable = (cell.strip() for cell in line.split("|"))
        names, _, off = names.partition("/")
        name, colon, paths = target.rpartition(":")
        yield Flag(
            names=tuple(names.split()),
            off=tuple(off.split()),
            kind=KINDS[kind],
            setter=SETTERS[name] if colon else assign,
            paths=tuple(paths.split()),
            variable=variable[1:] if variable[:1] == "=" else variable and f"LLAMA_ARG_{variable}",
        )


FLAGS = tuple(read_table(Path(__file__).with_name("flags.txt").read_text("utf-8")))
BY_NAME = {name: flag for flag in FLAGS for name in (*flag.names, *flag.off)}


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> list[Setting]:
    """Read the settings of environment and command line, in this order: a later setting wins.

    As in llama-server, ``--a_b`` is ``--a-b``, a value may begin with a dash, and
    ``LLAMA_ARG_NO_X`` does the same as ``--no-x``. Unlike there, ``--flag=value`` is accepted, and
    a ``--flash-attn`` without value means on, as in older releases.
    Raises StartError for an unknown flag or a bad value.
    """
    settings = list(_from_environment(environ))
    rest = list(arguments)
    while rest:
        name, equals, text = rest.pop(0).partition("=")
        name = name.replace("_", "-") if name.startswith("--") else name
        if (flag := BY_NAME.get(name)) is None:
            raise StartError(_unknown(name))
        if name in flag.off:
            settings.append(Setting(name, flag, False))
            continue
        if not equals:
            alone = not rest or rest[0].startswith("-")
            if flag.kind is SWITCH or (flag.kind is FLASH and alone):
                text = "on"
            elif rest:
                text = rest.pop(0)
            else:
                raise StartError(f"{name} needs a value, which must be {flag.kind.rule}.")
        settings.append(_setting(name, flag, text))
    return settings


def _setting(name: str, flag: Flag, text: str) -> Setting:
    try:
        return Setting(name, flag, flag.kind.read(text))
    except ValueError as error:
        refusal = f"invalid value for {name}: {text!r} must be {flag.kind.rule}."
        raise StartError(refusal) from error


def _from_environment(environ: Mapping[str, str]) -> Iterator[Setting]:
    for flag in FLAGS:
        off = flag.variable.replace("LLAMA_ARG_", "LLAMA_ARG_NO_")
        if flag.off and off in environ:
            yield Setting(off, flag, False)
        elif flag.variable in environ:
            yield _setting(flag.variable, flag, environ[flag.variable])


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, BY_NAME, n=1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown argument: {name}{guess}. {INSTALL_HINT}"


def help_text() -> str:
    """Return the text of ``--help``: a line a flag, laid out as llama-server's."""
    lines = []
    for flag in FLAGS:
        names = ", ".join((*flag.names, *flag.off))
        if flag.kind is SWITCH:
            lines.append(names)
        else:
            value = "[on|off|auto]" if flag.kind is FLASH else "VALUE"
            lines.append(f"{f'{names} {value}':<72}   {flag.kind.rule}")
    return "\n".join(lines)
