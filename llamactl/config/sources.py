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

import yaml
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
    shown,
)
from llamactl.config.schema import (
    AppConfig,
    ExpandsHome,
    Section,
    parse_header_pairs,
    parse_pairs,
)

CONFIG_PATH_VARIABLE = "LLAMACTL_CONFIG_PATH"
LARGEST_FILE_BYTES = 1 << 20
MOST_ALIASES = 32
"""Aliases of lists and mappings in one file; with more, a small file can mean gigabytes."""

VARIABLES: dict[str, str] = {
    "LLAMACTL_HOST": "server.host",
    "LLAMACTL_PORT": "server.port",
    "LLAMACTL_ALLOWED_ORIGINS": "server.allowed_origins",
    "LLAMACTL_ALLOWED_HEADERS": "server.allowed_headers",
    "LLAMACTL_ENABLE_SWAGGER": "server.enable_swagger",
    "LLAMACTL_RESPONSE_HEADERS": "server.response_headers",
    "LLAMACTL_WEB_PROCESSES": "server.web_processes",
    "LLAMACTL_MAX_BODY_MIB": "server.max_body_mib",
    "LLAMACTL_UPSTREAM_FIRST_BYTE_TIMEOUT": "server.upstream_first_byte_timeout",
    "LLAMACTL_UPSTREAM_IDLE_TIMEOUT": "server.upstream_idle_timeout",
    # The seed's own compose file says DATA_DIR, which the seed never read. DIRECTORY, being read
    # after it, wins.
    "LLAMACTL_DATA_DIR": "data_dir",
    "LLAMACTL_DATA_DIRECTORY": "data_dir",
    "LLAMACTL_INSTANCE_PORT_RANGE": "instances.port_range",
    "LLAMACTL_INSTANCES_DIR": "instances.configs_dir",
    "LLAMACTL_LOGS_DIR": "instances.logs_dir",
    "LLAMACTL_AUTO_CREATE_DATA_DIR": "instances.auto_create_dirs",
    "LLAMACTL_MAX_INSTANCES": "instances.max_instances",
    "LLAMACTL_MAX_RUNNING_INSTANCES": "instances.max_running_instances",
    "LLAMACTL_ENABLE_LRU_EVICTION": "instances.enable_lru_eviction",
    "LLAMACTL_GROUP_LIMITS": "instances.group_limits",
    "LLAMACTL_DEFAULT_AUTO_RESTART": "instances.default_auto_restart",
    "LLAMACTL_DEFAULT_MAX_RESTARTS": "instances.default_max_restarts",
    "LLAMACTL_DEFAULT_RESTART_DELAY": "instances.default_restart_delay",
    "LLAMACTL_DEFAULT_ON_DEMAND_START": "instances.default_on_demand_start",
    "LLAMACTL_DEFAULT_IDLE_TIMEOUT": "instances.default_idle_timeout",
    "LLAMACTL_ON_DEMAND_START_TIMEOUT": "instances.on_demand_start_timeout",
    "LLAMACTL_TIMEOUT_CHECK_INTERVAL": "instances.timeout_check_interval",
    "LLAMACTL_LOG_ROTATION_ENABLED": "instances.log_rotation_enabled",
    "LLAMACTL_LOG_ROTATION_MAX_SIZE": "instances.log_rotation_max_size",
    "LLAMACTL_LOG_ROTATION_COMPRESS": "instances.log_rotation_compress",
    "LLAMACTL_LOG_ROTATION_BACKUPS": "instances.log_rotation_backups",
    "LLAMACTL_START_TIMEOUT": "instances.start_timeout",
    "LLAMACTL_DRAIN_TIMEOUT": "instances.drain_timeout",
    "LLAMACTL_STOP_TIMEOUT": "instances.stop_timeout",
    "LLAMACTL_SWAP_AFTER": "instances.swap_after",
    "LLAMACTL_LOADS_AT_BOOT": "instances.loads_at_boot",
    "LLAMACTL_UNHEALTHY_TIMEOUT": "instances.unhealthy_timeout",
    "LLAMACTL_ORPHAN_GRACE": "instances.orphan_grace",
    "LLAMACTL_KEEP_BACKENDS": "instances.keep_backends",
    "LLAMACTL_DATABASE_PATH": "database.path",
    "LLAMACTL_DATABASE_URL": "database.url",
    "LLAMACTL_DATABASE_MAX_OPEN_CONNECTIONS": "database.max_open_connections",
    "LLAMACTL_DATABASE_MAX_IDLE_CONNECTIONS": "database.max_idle_connections",
    "LLAMACTL_DATABASE_CONN_MAX_LIFETIME": "database.connection_max_lifetime",
    "LLAMACTL_REDIS_URL": "redis.url",
    "LLAMACTL_REQUIRE_INFERENCE_AUTH": "auth.require_inference_auth",
    "LLAMACTL_INFERENCE_KEYS": "auth.inference_keys",
    "LLAMACTL_REQUIRE_MANAGEMENT_AUTH": "auth.require_management_auth",
    "LLAMACTL_MANAGEMENT_KEYS": "auth.management_keys",
    "LLAMACTL_LOCAL_NODE": "local_node",
    "LLAMACTL_LLAMACPP_COMMAND": "backends.llama_cpp.command",
    "LLAMACTL_LLAMACPP_ARGS": "backends.llama_cpp.args",
    "LLAMACTL_LLAMACPP_ENV": "backends.llama_cpp.environment",
    "LLAMACTL_LLAMACPP_RESPONSE_HEADERS": "backends.llama_cpp.response_headers",
    "LLAMACTL_LLAMACPP_CACHE_DIR": "backends.llama_cpp.cache_dir",
    "LLAMACTL_LLAMACPP_DOCKER_ENABLED": "backends.llama_cpp.docker.enabled",
    "LLAMACTL_LLAMACPP_DOCKER_IMAGE": "backends.llama_cpp.docker.image",
    "LLAMACTL_LLAMACPP_DOCKER_ARGS": "backends.llama_cpp.docker.args",
    "LLAMACTL_LLAMACPP_DOCKER_ENV": "backends.llama_cpp.docker.environment",
    "LLAMACTL_VLLM_COMMAND": "backends.vllm.command",
    "LLAMACTL_VLLM_ARGS": "backends.vllm.args",
    "LLAMACTL_VLLM_ENV": "backends.vllm.environment",
    "LLAMACTL_VLLM_RESPONSE_HEADERS": "backends.vllm.response_headers",
    "LLAMACTL_VLLM_DOCKER_ENABLED": "backends.vllm.docker.enabled",
    "LLAMACTL_VLLM_DOCKER_IMAGE": "backends.vllm.docker.image",
    "LLAMACTL_VLLM_DOCKER_ARGS": "backends.vllm.docker.args",
    "LLAMACTL_VLLM_DOCKER_ENV": "backends.vllm.docker.environment",
    "LLAMACTL_MLX_COMMAND": "backends.mlx.command",
    "LLAMACTL_MLX_ARGS": "backends.mlx.args",
    "LLAMACTL_MLX_ENV": "backends.mlx.environment",
    "LLAMACTL_MLX_RESPONSE_HEADERS": "backends.mlx.response_headers",
}
"""Environment variable -> field. The seed's names, the later Go program's, and ours in their style.

``nodes`` has none: its keys can be written as ``${VARIABLE}`` in the file.
"""

OTHER_VARIABLES: dict[str, str] = {
    CONFIG_PATH_VARIABLE: "",
    "LLAMACTL_LLAMACPP_DOWNLOAD_TIMEOUT": "models are downloaded by the backend itself",
}
"""Names that set no field -> the warning that says why, if it deserves one."""

# What Kubernetes tells every pod about a Service called "llamactl". LLAMACTL_PORT is one of them
# (tcp://10.0.0.1:8080), beside being ours.
_KUBERNETES_NAME = re.compile(r"LLAMACTL_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP)(_\w+)?)")
_KUBERNETES_PORT = re.compile(r"(tcp|udp)://")

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

# BaseSettings takes ready-made sources; to type checkers a model's parameters are its fields alone.
_build: Callable[..., AppConfig] = AppConfig

_SectionType = type[Section] | type[AppConfig]


def load(
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    *,
    config_path: Path | None = None,
) -> AppConfig:
    """Read all sources and return the one configuration.

    ``environ`` and ``cwd`` are those of the process unless a test says otherwise; ``config_path``
    goes before ``LLAMACTL_CONFIG_PATH``. Raises ConfigError with a line for each problem.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    dotenv_file = cwd / ".env"
    notes = _Notes(home=_home(environ), cwd=cwd)
    try:
        dotenv = _read_dotenv(dotenv_file, notes)
        notes.variables = {**dotenv, **environ}
        config_file = _find_file(config_path, notes)
        document = None if config_file is None else _read_yaml(config_file)
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
    try:
        config = _build(_build_sources=(tuple(reversed(layers)), {}))  # the strongest comes first
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
    field = _field_at(path)
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


def _field_at(path: FieldPath) -> FieldInfo:
    section: _SectionType = AppConfig
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
    for name, key in VARIABLES.items():
        text = variables.get(name, "")
        # The seed takes an empty variable for an unset one; compose files rely on that.
        if text and not (name == "LLAMACTL_PORT" and _KUBERNETES_PORT.match(text)):
            path = tuple(key.split("."))
            _put(layer, path, _parsed(text, path), origin(name), notes)
    for name in sorted(variables):
        if not name.startswith("LLAMACTL_") or name in VARIABLES:
            continue
        if name not in OTHER_VARIABLES and not _KUBERNETES_NAME.fullmatch(name):
            guess = _closest(name, [*VARIABLES, *OTHER_VARIABLES])
            notes.warnings.append(f"{origin(name)} is unknown and ignored{guess}")
        elif reason := OTHER_VARIABLES.get(name):
            notes.warnings.append(f"{origin(name)} is ignored: {reason}")
    return layer


def _parsed(text: str, path: FieldPath) -> object:
    """Mappings are read here already, so that they are merged with the file's, key by key."""
    if get_origin(_field_at(path).annotation) is not dict:
        return text
    try:
        return parse_header_pairs(text) if path[-1] == "response_headers" else parse_pairs(text)
    except ValueError:
        return text  # the field's type says what is wrong with it


def _read_dotenv(file: Path, notes: _Notes) -> dict[str, str]:
    """``NAME=value`` lines. The file is optional: another program's may lie here, or be private."""
    try:
        text = _read_bytes(file).decode("utf-8-sig")
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


def _read_bytes(file: Path) -> bytes:
    with file.open("rb") as stream:
        content = stream.read(LARGEST_FILE_BYTES + 1)
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigError([f"{file}: is too large, at most {LARGEST_FILE_BYTES} bytes are allowed"])
    return content


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


class _TextLoader(yaml.SafeLoader):
    """SafeLoader, but scalars stay text; duplicate keys and too many aliases are errors."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Build one node; count it when it repeats a list or mapping."""
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_alias and not isinstance(node, yaml.ScalarNode):
            self.aliases += 1
            if self.aliases > MOST_ALIASES:
                mark = None if parent is None else parent.start_mark
                raise yaml.MarkedYAMLError(problem="too many aliases", problem_mark=mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Build one mapping; the seed's YAML library refuses a key that comes twice, too."""
        mapping = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in mapping.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {shown(key.value)} comes twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return mapping

    def construct_text(self, node: yaml.Node) -> str:
        """The text of a scalar, whatever type its tag asks for."""
        return self.construct_yaml_str(node)


# Of the rules by which plain scalars get a type, only those for null and for merge keys (<<).
_TextLoader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0].endswith((":null", ":merge"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag in ("bool", "int", "float", "binary", "timestamp"):  # written out, as in "!!int 5"
    _TextLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _TextLoader.construct_text)


def _read_yaml(file: Path) -> object:
    """The document in ``file``. Raises ConfigError, with the line where there is one."""
    try:
        return yaml.load(_read_bytes(file), Loader=_TextLoader)  # noqa: S506  derived from SafeLoader
    except OSError as error:
        raise ConfigError([f"{file}: can't be read: {error.strerror}"]) from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        # A secret that begins with * or ! is taken for an alias or tag, and named in the message.
        problem = re.sub(r"(alias|tag) '.*'", r"\1", error.problem or "", flags=re.DOTALL)
        raise ConfigError([f"{file}{line}: is not valid YAML: {problem}"]) from None
    except yaml.reader.ReaderError as error:
        where = f"at position {error.position}"
        raise ConfigError([f"{file}: is not valid YAML: {error.reason} {where}"]) from None
    except RecursionError:
        raise ConfigError([f"{file}: is nested too deeply"]) from None
    except (ValueError, OverflowError):
        raise ConfigError([f"{file}: is not valid YAML: an escape that is no character"]) from None


def _layer_of_file(document: object, file: str, notes: _Notes) -> Layer:
    layer = Layer({}, {})
    _read_section(document, AppConfig, (), layer, file, notes)
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
            guess = _guess(key, section)
            notes.warnings.append(f"{file}: {dotted(here)} is unknown and ignored{guess}")
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


def _guess(key: str, section: _SectionType) -> str:
    """What an unknown key may have meant: a neighbour, or the same key in another section."""
    known = {name.replace("llama_cpp", "llama-cpp") for name in section.model_fields}
    if guess := _closest(key, known):
        return guess
    elsewhere = [dotted(tuple(other.split("."))) for other in VARIABLES.values()]
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
