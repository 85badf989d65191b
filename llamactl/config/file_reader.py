"""Reader of the configuration file, and search for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args, get_origin

from pydantic.fields import FieldInfo

from llamactl.config.layers import Layer, LoadContext, SectionType, section_in, suggestion
from llamactl.config.problems import ConfigError, FieldPath, dotted
from llamactl.config.variables import CONFIG_PATH_VARIABLE, variables_with
from llamactl.config.yaml_text import UnresolvedText, open_file


def named_file(
    config_path: Path | None, variables: Mapping[str, str], context: LoadContext
) -> Path | None:
    """Return ``config_path``, else the file of ``LLAMACTL_CONFIG_PATH``, else None."""
    asked = str(config_path or "") or variables.get(CONFIG_PATH_VARIABLE, "")
    if "\0" in asked:
        raise ConfigError([f"{CONFIG_PATH_VARIABLE} has a NUL character, which is not allowed"])
    # A shell expands "~", but systemd units, compose files and .env don't.
    return context.cwd / context.expand_home(asked) if asked else None


def find_file(config_path: Path | None, context: LoadContext) -> Path | None:
    """Find the file: ``config_path``, else ``LLAMACTL_CONFIG_PATH``, else the first usual place.

    An unreadable file in a usual place is a warning.
    """
    if named := named_file(config_path, context.variables, context):
        return named
    places = (
        context.cwd / "llamactl.yaml",
        context.cwd / "config.yaml",
        *(directory / "config.yaml" for directory in context.config_dirs),
    )
    for place in places:
        try:
            with open_file(place):
                return place
        except FileNotFoundError:
            continue
        except OSError as error:
            context.warnings.append(f"{place} is ignored: {error.strerror}")
    return None


class FileReader:
    """Reads the YAML document of ``file`` into a layer, section by section."""

    def __init__(self, file: str, context: LoadContext) -> None:
        self._file = file
        self._context = context
        self._layer = Layer()

    def read(self, document: object) -> Layer:
        """Read the whole document. Problems and warnings go to the context."""
        self._read_section(document, self._context.model, ())
        return self._layer

    def _read_section(self, raw: object, section: SectionType, path: FieldPath) -> None:
        """Read the known keys of ``section``, which bounds the depth, however deep the file is."""
        seen = set()
        for key, value in self._mapping(raw, path).items():
            name = section.other_names.get(key, key)
            here = (*path, name)
            if name in seen:
                self._report(f"{dotted(here)} comes twice, also under its other name")
                continue
            seen.add(name)
            if key in section.ignored_keys:
                self._warn(f"{dotted(here)} is ignored: {section.ignored_keys[key]}")
            elif name not in section.model_fields:
                written = f"{dotted(path)}.{key}" if path else key
                guess = self._guess(key, section, path)
                self._warn(f"{written[:200]} is unknown and ignored{guess}")
            else:
                self._read_field(value, section.model_fields[name], here)

    def _read_field(self, value: object, field: FieldInfo, path: FieldPath) -> None:
        inner = section_in(field)
        if inner is None:
            # A key without a value: Go leaves a scalar as it was, and empties a list or mapping.
            if value is not None or isinstance(field.default, (list, dict)):
                self._read_value(value, path)
        elif get_origin(field.annotation) is dict:
            for name, item in self._mapping(value, path).items():
                self._layer.tree.setdefault(path[-1], {})[name] = {}
                self._read_section(item, inner, (*path, name))
        elif value is None and type(None) in get_args(field.annotation):
            self._layer.put(path, None, self._file, self._context)
        else:
            self._read_section(value, inner, path)

    def _read_value(self, value: object, path: FieldPath) -> None:
        self._layer.put(path, self._resolve(value, path), self._file, self._context)

    def _mapping(self, raw: object, path: FieldPath) -> dict[str, object]:
        if raw is None:
            return {}
        if isinstance(raw, dict):
            return {"" if key is None else str(key): value for key, value in raw.items()}
        kind = "a list" if isinstance(raw, list) else "a single value"
        subject = dotted(path) if path else "the file"
        self._report(f"{subject} is {kind}, but must be a mapping of keys to values")
        return {}

    def _resolve(self, value: object, path: FieldPath) -> object:
        """Return the value in plain texts; warn of references to variables that are not set."""
        if isinstance(value, dict):
            # Go reads an empty value in a mapping of texts as the empty text.
            return {
                self._plain(key, path): "" if item is None else self._plain(item, path)
                for key, item in value.items()
            }
        if path[0] == "auth":
            value = self._without_guessable_keys(value, path)
        if isinstance(value, list):
            return [self._plain(item, path) for item in value]
        return self._plain(value, path)

    def _plain(self, item: object, path: FieldPath) -> object:
        if not isinstance(item, UnresolvedText):
            return item
        for name in item.variables:
            self._warn(
                f"{dotted(path)} has ${{{name}}}, which stays as it is: the variable {name} is not"
                f" set (${{{name}:-default}} gives a default)"
            )
        return str(item)

    def _without_guessable_keys(self, value: object, path: FieldPath) -> object:
        """Leave out keys with a variable that is not set: anyone could guess the reference."""
        if isinstance(value, UnresolvedText) and path[-1].endswith("_keys"):
            names = value.variables
            value = [UnresolvedText(key, names) if "${" in key else key for key in value.split(",")]
        if not isinstance(value, list):
            return value
        for name in dict.fromkeys(
            name for key in value if isinstance(key, UnresolvedText) for name in key.variables
        ):
            self._warn(
                f"{dotted(path)} has a key with ${{{name}}}, which is left out: the variable"
                f" {name} is not set"
            )
        return [key for key in value if not isinstance(key, UnresolvedText)]

    def _guess(self, key: str, section: SectionType, path: FieldPath) -> str:
        """Suggest a key for an unknown one: a similar neighbour, or its namesake elsewhere."""
        known = {dotted((*path, name)).rpartition(".")[2] for name in section.model_fields}
        if guess := suggestion(key, known):
            return guess
        fields = variables_with(self._context.backends).values()
        elsewhere = [dotted(tuple(field.split("."))) for field in fields]
        return next((f"; did you mean {k}?" for k in elsewhere if k.split(".")[-1] == key), "")

    def _report(self, problem: str) -> None:
        self._context.problems.append(f"{self._file}: {problem}")

    def _warn(self, warning: str) -> None:
        self._context.warnings.append(f"{self._file}: {warning}")
