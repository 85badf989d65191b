"""Reader of the configuration file, and search for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_origin

from pydantic.fields import FieldInfo

from llamactl.config.layers import Layer, LoadContext, SectionType, section_in, suggestion
from llamactl.config.problems import ConfigError, FieldPath, dotted
from llamactl.config.variables import CONFIG_PATH_VARIABLE, variables_with

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def find_file(config_path: Path | None, context: LoadContext) -> Path | None:
    """Find the file: ``config_path``, else ``LLAMACTL_CONFIG_PATH``, else the first usual place.

    An unreadable file in a usual place is a warning.
    """
    asked = str(config_path or "") or context.variables.get(CONFIG_PATH_VARIABLE, "")
    if "\0" in asked:
        raise ConfigError([f"{CONFIG_PATH_VARIABLE} has a NUL character, which is not allowed"])
    if asked:
        # A shell expands "~", but systemd units, compose files and .env don't.
        return context.cwd / context.expand_home(asked)
    places = (
        context.cwd / "llamactl.yaml",
        context.cwd / "config.yaml",
        context.home / ".config/llamactl/config.yaml",
        Path("/etc/llamactl/config.yaml"),
    )
    for place in places:
        try:
            with place.open("rb"):
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
        known_problems = len(self._context.problems)
        value = self._expand(value, path)
        if len(self._context.problems) == known_problems:
            self._layer.put(path, value, self._file, self._context)

    def _mapping(self, raw: object, path: FieldPath) -> dict[str, object]:
        if raw is None:
            return {}
        if isinstance(raw, dict):
            return {"" if key is None else str(key): value for key, value in raw.items()}
        kind = "a list" if isinstance(raw, list) else "a single value"
        subject = dotted(path) if path else "the file"
        self._report(f"{subject} is {kind}, but must be a mapping of keys to values")
        return {}

    def _expand(self, value: object, path: FieldPath) -> object:
        """Replace ``${NAME}`` and ``${NAME:-default}`` in the texts of ``value``."""

        def replace(match: re.Match[str]) -> str:
            name, default = match.groups()
            text = self._context.variables.get(name)
            if default is not None:
                return text or default
            if text is None:
                self._report(
                    f"{dotted(path)} needs the variable {name}, which is not set "
                    f"(${{{name}:-default}} would do without it)"
                )
                return ""
            return text

        def expand(item: object) -> object:
            return _REFERENCE.sub(replace, item) if isinstance(item, str) else item

        if isinstance(value, dict):
            # Go reads an empty value in a mapping of texts as the empty text.
            return {key: "" if item is None else expand(item) for key, item in value.items()}
        return [expand(item) for item in value] if isinstance(value, list) else expand(value)

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
