"""Layers of the configuration: the values of one source as a tree of field names.

Values are text where possible. YAML's scalars stay the text in the file, so that ``0.10`` in a
backend's environment does not become ``0.1``, nor ``22:22`` a number in base 60. The types of
``types`` read text from a file and from the environment alike.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from llamactl.config.app_config import AppConfig
from llamactl.config.problems import FieldPath, dotted
from llamactl.config.schema import BackendSections, Section
from llamactl.config.types import ExpandsHome

_SURROGATE = re.compile("[\ud800-\udfff]")

SectionType = type[Section] | type[AppConfig]


@dataclass
class LoadContext:
    """Schema, directories, variables and problems that all readers of one load share."""

    model: type[AppConfig]
    backends: BackendSections
    home: Path
    cwd: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    """The environment over ``.env``, for ``${NAME}`` in the file."""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def config_dirs(self) -> tuple[Path, ...]:
        """The user's and the system's directory of ``config.yaml`` and ``.env``."""
        return (self.home / ".config/llamactl", Path("/etc/llamactl"))

    def expand_home(self, text: str) -> str:
        """``~/models`` → ``/home/me/models``."""
        return str(self.home / text[2:]) if text == "~" or text.startswith("~/") else text


class Layer(PydanticBaseSettingsSource):
    """The values of one source, with the origin of each."""

    def __init__(
        self, tree: dict[str, Any] | None = None, origins: dict[FieldPath, str] | None = None
    ) -> None:
        super().__init__(AppConfig)
        self.tree = {} if tree is None else tree
        self.origins = {} if origins is None else origins

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of one top-level field, in the form that pydantic-settings expects."""
        return self.tree.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the whole tree; pydantic-settings merges the trees of all sources."""
        return self.tree

    def put(self, path: FieldPath, value: object, origin: str, context: LoadContext) -> None:
        """Write one value into the tree, or report unusable characters in it as a problem."""
        field = field_at(path, context.model)
        if ExpandsHome in field.metadata and isinstance(value, str):
            value = context.expand_home(value)
            if Path in (field.annotation, *get_args(field.annotation)):
                if not value:
                    return  # the seed writes "" for a directory that follows data_dir
                if path == ("data_dir",):
                    value = str(context.cwd / value)
        if problem := next(filter(None, map(unusable_characters, _texts(value))), ""):
            context.problems.append(f"{origin}: {dotted(path)} has {problem}")
            return
        branch = self.tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = value
        self.origins[path] = origin
        if isinstance(value, dict):
            self.origins.update({(*path, str(key)): origin for key in value})


def merged_origins(layers: Iterable[Layer]) -> dict[FieldPath, str]:
    """Merge the origins of all layers, the strongest layer last."""
    origins: dict[FieldPath, str] = {}
    for layer in layers:
        # A value below a null section (docker) replaces the null, so the section's origin goes.
        for path in layer.origins:
            for length in range(1, len(path)):
                origins.pop(path[:length], None)
        origins.update(layer.origins)
    return origins


def field_at(path: FieldPath, model: type[AppConfig]) -> FieldInfo:
    """Return the field of ``model`` at ``path``."""
    section: SectionType = model
    for name in path[:-1]:
        # A node's name is not a field: below ``nodes`` the section is NodeConfig already.
        if name in section.model_fields:
            section = section_in(section.model_fields[name]) or section
    return section.model_fields[path[-1]]


def section_in(field: FieldInfo) -> type[Section] | None:
    """Return the section in ``X``, ``X | None`` or ``dict[str, X]``."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def suggestion(word: str, candidates: Iterable[str]) -> str:
    """Suggest the candidate that is most like ``word``: ``"; did you mean X?"``, or nothing."""
    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=0.75)
    return f"; did you mean {matches[0]}?" if matches else ""


def unusable_characters(text: str) -> str:
    """Say which characters of a text are unusable; "" for a usable text."""
    if "\0" in text:
        return "a NUL character, which is not allowed"
    # As such bytes of a variable or a working directory are read (PEP 383). Neither SQLite nor
    # the API could take the text.
    return "" if text.isascii() or not _SURROGATE.search(text) else "bytes that are not UTF-8"


def _texts(value: object) -> Iterable[str]:
    """List the texts in a value, its items, or its keys and values. YAML may nest them deeper."""
    if isinstance(value, dict):
        items: Iterable[object] = [*value.keys(), *value.values()]
    else:
        items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]
