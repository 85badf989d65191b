"""Who has set what: defaults < ``.env`` < YAML file < ``LLAMACTL_*`` environment.

Every layer becomes a tree of field names and texts. YAML's scalars stay the text that is written,
so ``0.10`` in a backend's environment is not ``0.1`` and ``22:22`` is no number in base 60; the
types in ``schema`` read them, in the same way as they read the environment.
"""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from dotenv.parser import parse_stream
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from llamactl.config.problems import (
    ConfigError,
    FieldPath,
    dotted,
    error_lines,
    origin_of,
    printable,
)
from llamactl.config.schema import AppConfig, BackendSections, Section, config_model
from llamactl.config.types import ExpandsHome, parse_header_pairs, parse_pairs
from llamactl.config.variables import (
    _KUBERNETES_NAME,
    _KUBERNETES_PORT,
    CONFIG_PATH_VARIABLE,
    other_variables_with,
    variables_with,
)
from llamactl.config.yaml_text import TextLoader, read_bytes, read_yaml

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

_SectionType = type[Section] | type[AppConfig]


def load(
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    *,
    backends: BackendSections,
    config_path: Path | None = None,
) -> AppConfig:
    """Read all sources and return the one configuration.

    ``backends`` are the sections of the registry (``instances.backends.config_sections``).
    ``environ`` and ``cwd`` are those of the process unless a test says otherwise; ``config_path``
    goes before ``LLAMACTL_CONFIG_PATH``. Raises ConfigError with a line for each problem.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    dotenv_file = cwd / ".env"
    model = config_model(backends)
    notes = _Notes(home=_home(environ), cwd=cwd, model=model, backends=backends)
    try:
        dotenv = _read_dotenv(dotenv_file, notes)
        notes.variables = {**dotenv, **environ}
        config_file = _find_file(config_path, notes)
        document = None if config_file is None else read_yaml(config_file)
    except ConfigError as error:
        raise ConfigError([*notes.problems, *error.lines], notes.warnings) from None

    layers = [
        Layer({"data_dir": str(notes.home / ".local/share/llamactl")}, {}),
        _layer_of_variables(dotenv, lambda name: f"{dotenv_file}: {name}", notes),
        _layer_of_file(document, str(config_file), notes),
        _layer_of_variables(environ, lambda name: name, notes),
    ]
    origins: dict[FieldPath, str] = {}
    for layer in layers:
        # Whoever sets a part of what was null before (docker) has made the rest of it, too.
        for path in layer.origins:
            for length in range(1, len(path)):
                origins.pop(path[:length], None)
        origins.update(layer.origins)
    # BaseSettings takes ready-made sources; to type checkers its parameters are the fields alone.
    build: Callable[..., AppConfig] = model
    try:
        config = build(_build_sources=(tuple(reversed(layers)), {}))  # the strongest comes first
    except ValidationError as error:
        problems = error_lines(error, origins)
        raise ConfigError([*notes.problems, *problems], notes.warnings) from None
    if notes.problems:
        raise ConfigError(notes.problems, notes.warnings)
    if config.auth.inference_keys:
        notes.warnings.append(
            f"{origin_of(('auth', 'inference_keys'), origins)}: auth.inference_keys is ignored "
            "(as in the Go program): make inference keys in the admin or by POST /api/v1/auth/keys"
        )
    config._warnings = tuple(map(printable, notes.warnings))
    config._origins = origins
    return config


def _home(environ: Mapping[str, str]) -> Path:
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path.home()
    except RuntimeError:  # a container that runs as a uid without a name
        return Path("/")


class Layer(PydanticBaseSettingsSource):
    """One source of settings: a tree of field names, and who set each part of it."""

    def __init__(self, tree: dict[str, Any], origins: dict[FieldPath, str]) -> None:
        super().__init__(AppConfig)
        self.tree = tree
        self.origins = origins

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The value of one top-level field, as pydantic-settings asks for it."""
        return self.tree.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The whole tree; pydantic-settings merges the trees of all sources."""
        return self.tree


@dataclass
class _Notes:
    """What reading needs to know and what it has found out."""

    home: Path
    cwd: Path
    model: type[AppConfig]
    backends: BackendSections
    variables: Mapping[str, str] = field(default_factory=dict)
    """For ``${NAME}``: the environment over ``.env``."""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def at_home(self, text: str) -> str:
        """``~/models`` -> ``/home/me/models``."""
        return str(self.home / text[2:]) if text == "~" or text.startswith("~/") else text


def _put(layer: Layer, path: FieldPath, value: object, origin: str, notes: _Notes) -> None:
    """Write one value into the layer; what no value may hold is refused here."""
    if any("\0" in text for text in _texts(value)):
        notes.problems.append(f"{origin}: {dotted(path)} has a NUL character, which is not allowed")
        return
    field = _field_at(path, notes.model)
    if ExpandsHome in field.metadata and isinstance(value, str):
        value = notes.at_home(value)
        if Path in (field.annotation, *get_args(field.annotation)):
            if not value:
                return  # the seed writes "" for a directory that follows data_dir
            if path == ("data_dir",):
                value = str(notes.cwd / value)
    branch = layer.tree
    for name in path[:-1]:
        branch = branch.setdefault(name, {})
    branch[path[-1]] = value
    layer.origins[path] = origin
    if isinstance(value, dict):
        layer.origins.update({(*path, str(key)): origin for key in value})


def _texts(value: object) -> Iterable[str]:
    """The texts in a value, its items, or its keys and values. No deeper: YAML nests at will."""
    if isinstance(value, dict):
        items: Iterable[object] = [*value.keys(), *value.values()]
    else:
        items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]


def _field_at(path: FieldPath, model: type[AppConfig]) -> FieldInfo:
    section: _SectionType = model
    for name in path[:-1]:
        # The name of a node is no field: its section is the one that "nodes" led to.
        if name in section.model_fields:
            section = _section_in(section.model_fields[name]) or section
    return section.model_fields[path[-1]]


def _section_in(field: FieldInfo) -> type[Section] | None:
    """The section in ``X``, ``X | None`` or ``dict[str, X]``."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def _closest(word: str, candidates: Iterable[str]) -> str:
    """``"; did you mean X?"``, or nothing."""
    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=0.75)
    return f"; did you mean {matches[0]}?" if matches else ""


# -- environment and .env -------------------------------------------------------------------------


def _layer_of_variables(
    variables: Mapping[str, str], origin: Callable[[str], str], notes: _Notes
) -> Layer:
    layer = Layer({}, {})
    known = variables_with(notes.backends)
    others = other_variables_with(notes.backends)
    for name, key in known.items():
        text = variables.get(name, "")
        # The seed takes an empty variable for an unset one; compose files rely on that.
        if text and not (name == "LLAMACTL_PORT" and _KUBERNETES_PORT.match(text)):
            path = tuple(key.split("."))
            _put(layer, path, _parsed(text, path, notes.model), origin(name), notes)
    for name in sorted(variables):
        if not name.startswith("LLAMACTL_") or name in known:
            continue
        if name not in others and not _KUBERNETES_NAME.fullmatch(name):
            guess = _closest(name, [*known, *others])
            notes.warnings.append(f"{origin(name)} is unknown and ignored{guess}")
        elif reason := others.get(name):
            notes.warnings.append(f"{origin(name)} is ignored: {reason}")
    return layer


def _parsed(text: str, path: FieldPath, model: type[AppConfig]) -> object:
    """Mappings are read here already, so that they are merged with the file's, key by key."""
    if get_origin(_field_at(path, model).annotation) is not dict:
        return text
    try:
        return parse_header_pairs(text) if path[-1] == "response_headers" else parse_pairs(text)
    except ValueError:
        return text  # the field's type says what is wrong with it


def _read_dotenv(file: Path, notes: _Notes) -> dict[str, str]:
    """``NAME=value`` lines. The file is optional: another program's may lie here, or be private."""
    try:
        text = read_bytes(file).decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: must be UTF-8 text (byte {error.start} is not)"]) from None
    except OSError as error:
        notes.warnings.append(f"{file} is ignored: {error.strerror}")
        return {}
    variables = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            line = f"{file}, line {binding.original.line}: must be NAME=value"
            ours = "LLAMACTL_" in binding.original.string
            (notes.problems if ours else notes.warnings).append(line)
        elif binding.key is not None and binding.value is not None:
            variables[binding.key] = binding.value
    return variables


# -- YAML file ------------------------------------------------------------------------------------


def _find_file(config_path: Path | None, notes: _Notes) -> Path | None:
    """The file to read: the one that is asked for, or the first readable of the usual places."""
    asked = str(config_path or "") or notes.variables.get(CONFIG_PATH_VARIABLE, "")
    if "\0" in asked:
        raise ConfigError([f"{CONFIG_PATH_VARIABLE} has a NUL character, which is not allowed"])
    if asked:
        # "~" is the shell's business, but not in a systemd unit, in compose or in .env.
        return notes.cwd / notes.at_home(asked)
    places = (
        notes.cwd / "llamactl.yaml",
        notes.cwd / "config.yaml",
        notes.home / ".config/llamactl/config.yaml",
        Path("/etc/llamactl/config.yaml"),
    )
    for place in places:
        try:
            with place.open("rb"):
                return place
        except FileNotFoundError:
            continue
        except OSError as error:
            notes.warnings.append(f"{place} is ignored: {error.strerror}")
    return None


for _tag in ("bool", "int", "float", "binary", "timestamp"):  # written out, as in "!!int 5"
    TextLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", TextLoader.construct_text)


def _layer_of_file(document: object, file: str, notes: _Notes) -> Layer:
    layer = Layer({}, {})
    _read_section(document, notes.model, (), layer, file, notes)
    return layer


def _read_section(
    raw: object, section: _SectionType, path: FieldPath, layer: Layer, file: str, notes: _Notes
) -> None:
    """Put what ``raw`` says about ``section`` into the layer.

    Only known keys are followed, so the depth is the schema's, whatever the file nests.
    """
    seen = set()
    for key, value in _mapping(raw, path, file, notes).items():
        name = section.other_names.get(key, key)
        here = (*path, name)
        if name in seen:
            notes.problems.append(f"{file}: {dotted(here)} comes twice, also under its other name")
            continue
        seen.add(name)
        if key in section.ignored_keys:
            reason = section.ignored_keys[key]
            notes.warnings.append(f"{file}: {dotted(here)} is ignored: {reason}")
        elif name not in section.model_fields:
            guess = _guess(key, section, path, notes)
            written = f"{dotted(path)}.{key}" if path else key
            notes.warnings.append(f"{file}: {written[:200]} is unknown and ignored{guess}")
        else:
            _read_field(value, section.model_fields[name], here, layer, file, notes)


def _read_field(
    value: object, field: FieldInfo, path: FieldPath, layer: Layer, file: str, notes: _Notes
) -> None:
    inner = _section_in(field)
    if inner is None:
        # A key without a value: Go leaves a scalar as it was, and empties a list or mapping.
        if value is not None or isinstance(field.default, (list, dict)):
            known_problems = len(notes.problems)
            value = _expanded(value, path, file, notes)
            if len(notes.problems) == known_problems:
                _put(layer, path, value, file, notes)
    elif get_origin(field.annotation) is dict:
        for name, item in _mapping(value, path, file, notes).items():
            layer.tree.setdefault(path[-1], {})[name] = {}
            _read_section(item, inner, (*path, name), layer, file, notes)
    elif value is None and type(None) in get_args(field.annotation):
        _put(layer, path, None, file, notes)
    else:
        _read_section(value, inner, path, layer, file, notes)


def _mapping(raw: object, path: FieldPath, file: str, notes: _Notes) -> dict[str, object]:
    if raw is None:
        return {}
    if isinstance(raw, dict):
        return {"" if key is None else str(key): value for key, value in raw.items()}
    kind = "a list" if isinstance(raw, list) else "a single value"
    subject = dotted(path) if path else "the file"
    notes.problems.append(f"{file}: {subject} is {kind}, but must be a mapping of keys to values")
    return {}


def _guess(key: str, section: _SectionType, path: FieldPath, notes: _Notes) -> str:
    """What an unknown key may have meant: a neighbour, or the same key in another section."""
    known = {dotted((*path, name)).rpartition(".")[2] for name in section.model_fields}
    if guess := _closest(key, known):
        return guess
    fields = variables_with(notes.backends).values()
    elsewhere = [dotted(tuple(field.split("."))) for field in fields]
    return next((f"; did you mean {k}?" for k in elsewhere if k.split(".")[-1] == key), "")


def _expanded(value: object, path: FieldPath, file: str, notes: _Notes) -> object:
    """``value`` with ``${NAME}`` and ``${NAME:-default}`` replaced in its texts."""

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        text = notes.variables.get(name)
        if default is not None:
            return text or default
        if text is None:
            notes.problems.append(
                f"{file}: {dotted(path)} needs the variable {name}, which is not set "
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
