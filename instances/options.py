"""The instance options document: what an operator may say about an instance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from instances.backends import backend_for, default_backend_type
from instances.errors import InvalidInstance, InvalidInstanceName
from instances.limits import ResourceLimits, parse_limits
from llamactl.core.errors import InvalidRequest

if TYPE_CHECKING:
    from llamactl.config import AppConfig

MAX_NAME_LENGTH = 50
NAME_PATTERN = r"[a-zA-Z0-9_-][a-zA-Z0-9._-]*"
_NAME = re.compile(NAME_PATTERN, re.ASCII)
ENVIRONMENT_NAME_PATTERN = r"[A-Za-z_][A-Za-z0-9_]*"
_ENVIRONMENT_NAME = re.compile(ENVIRONMENT_NAME_PATTERN, re.ASCII)
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-zA-Z0-9-]{1,63}(\.[a-zA-Z0-9-]{1,63})*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
MAX_COUNT = 2**31 - 1
_LONGEST_PATH = 4095

T = TypeVar("T")


@dataclass(frozen=True)
class InstanceOptions:
    """The seed's ``options`` object, defaults filled in. ``backend_options`` is canonical."""

    backend_type: str
    backend_options: dict[str, object]
    nodes: tuple[str, ...]
    auto_restart: bool
    max_restarts: int
    restart_delay: int
    """Seconds."""
    on_demand_start: bool
    idle_timeout: int
    """Minutes; 0 never stops it for idleness."""
    environment: dict[str, str] = field(default_factory=dict)
    docker_enabled: bool | None = None
    command_override: str = ""
    group: str = ""
    working_directory: str = ""
    """An absolute path; empty is the data directory."""
    limits: ResourceLimits = field(default_factory=ResourceLimits)

    def to_document(self) -> dict[str, object]:
        """The JSON shape of the seed; fields that were never said are left out."""
        document: dict[str, object] = {
            "backend_type": self.backend_type,
            "backend_options": dict(self.backend_options),
            "nodes": list(self.nodes),
            "auto_restart": self.auto_restart,
            "max_restarts": self.max_restarts,
            "restart_delay": self.restart_delay,
            "on_demand_start": self.on_demand_start,
            "idle_timeout": self.idle_timeout,
        }
        if self.environment:
            document["environment"] = dict(self.environment)
        if self.docker_enabled is not None:
            document["docker_enabled"] = self.docker_enabled
        if self.command_override:
            document["command_override"] = self.command_override
        if self.group:
            document["group"] = self.group
        if self.working_directory:
            document["working_directory"] = self.working_directory
        if limits := self.limits.to_document():
            document["limits"] = limits
        return document


def validate_name(name: str) -> str:
    """The name, if it may name an instance.

    Letters, digits, ``_``, ``-`` and, not first, ``.``; 1 to 50 characters. Periods are the later
    Go program's rule: model names have them.

    Raises InvalidInstanceName.
    """
    if not name:
        raise InvalidInstanceName("name cannot be empty")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidInstanceName(f"name too long (max {MAX_NAME_LENGTH} characters)")
    if not _NAME.fullmatch(name):
        raise InvalidInstanceName(
            "name contains invalid characters (only letters, digits, hyphens, underscores and,"
            " not as the first character, periods are allowed)"
        )
    return name


def parse_options(raw: object, config: AppConfig) -> InstanceOptions:
    """An options document from outside, checked and with the config's defaults filled in.

    Unknown top-level keys are ignored, as in the seed; negative counts become 0;
    ``command_override`` is dropped where docker is asked for, and docker where the backend has
    none (MLX). ``nodes`` defaults to the local node.

    Raises InvalidRequest (wrong JSON types) or InvalidInstance (a rule of a field).
    """
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"Invalid request body: expected a JSON object, got {_kind(raw)}")
    backend = backend_for(_text(raw, "backend_type") or default_backend_type())
    backend_options = raw.get("backend_options")
    if backend_options is None:
        backend_options = {}
    if not isinstance(backend_options, Mapping):
        raise InvalidRequest(f"backend_options must be an object, got {_kind(backend_options)}")
    docker_enabled = _boolean(raw, "docker_enabled")
    if backend.config_section(config).docker is None:
        docker_enabled = None
    defaults = config.instances
    return InstanceOptions(
        backend_type=backend.type,
        backend_options=_with_usable_host(backend.normalise(backend_options)),
        nodes=_nodes(raw, config),
        auto_restart=_or(_boolean(raw, "auto_restart"), defaults.default_auto_restart),
        max_restarts=_or(_count(raw, "max_restarts"), defaults.default_max_restarts),
        restart_delay=_or(_count(raw, "restart_delay"), defaults.default_restart_delay),
        on_demand_start=_or(_boolean(raw, "on_demand_start"), defaults.default_on_demand_start),
        idle_timeout=_or(_count(raw, "idle_timeout"), defaults.default_idle_timeout),
        environment=_environment(raw),
        docker_enabled=docker_enabled,
        command_override="" if docker_enabled else _text(raw, "command_override"),
        group=_text(raw, "group"),
        working_directory=_working_directory(raw),
        limits=parse_limits(raw.get("limits")),
    )


def stored_options(document: Mapping[str, Any]) -> InstanceOptions:
    """The options of a saved instance, from the document that ``to_document`` made."""
    return InstanceOptions(
        backend_type=document["backend_type"],
        backend_options=dict(document["backend_options"]),
        nodes=tuple(document["nodes"]),
        auto_restart=document["auto_restart"],
        max_restarts=document["max_restarts"],
        restart_delay=document["restart_delay"],
        on_demand_start=document["on_demand_start"],
        idle_timeout=document["idle_timeout"],
        environment=dict(document.get("environment", {})),
        docker_enabled=document.get("docker_enabled"),
        command_override=document.get("command_override", ""),
        group=document.get("group", ""),
        working_directory=document.get("working_directory", ""),
        limits=parse_limits(document.get("limits")),
    )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")


def _text(raw: Mapping[str, object], name: str) -> str:
    value = raw.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string, got {_kind(value)}")
    if _CONTROL.search(value):
        raise InvalidInstance(f"{name} must not contain control characters: {value[:80]!r}")
    return value


def _working_directory(raw: Mapping[str, object]) -> str:
    value = _text(raw, "working_directory")
    if value and not value.startswith("/"):
        raise InvalidInstance(
            f"working_directory must be an absolute path on the node, got {value[:80]!r}"
        )
    try:
        is_too_long = len(value.encode()) > _LONGEST_PATH
    except UnicodeEncodeError:
        raise InvalidInstance("working_directory must be valid Unicode") from None
    if is_too_long:
        raise InvalidInstance(f"working_directory must be at most {_LONGEST_PATH} bytes long")
    return value


def _boolean(raw: Mapping[str, object], name: str) -> bool | None:
    value = raw.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false, got {_kind(value)}")
    return value


def _count(raw: Mapping[str, object], name: str) -> int | None:
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"{name} must be a whole number, got {_kind(value)}")
    if value > MAX_COUNT:
        raise InvalidInstance(f"{name} must be at most {MAX_COUNT}, got {str(value)[:80]}")
    return max(value, 0)


def _with_usable_host(backend_options: dict[str, object]) -> dict[str, object]:
    """The options, unless they name a host that can be no address: it ends up in URLs."""
    host = backend_options.get("host")
    if isinstance(host, str) and not _HOST_NAME.fullmatch(host):
        try:
            ip_address(host)
        except ValueError:
            raise InvalidInstance(
                f"backend_options.host must be an IP address or a host name, got {host[:80]!r};"
                " leave it out to listen on this machine alone"
            ) from None
    return backend_options


def _nodes(raw: Mapping[str, object], config: AppConfig) -> tuple[str, ...]:
    value = raw.get("nodes")
    if value is None or value == []:
        return (config.local_node,)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InvalidRequest("nodes must be a list of node names")
    known = {config.local_node, *config.nodes}
    for name in value:
        if name not in known:
            raise InvalidInstance(
                f"node {name[:80]!r} not found; known nodes: {', '.join(sorted(known))}"
            )
    return tuple(sorted(set(value)))


def _environment(raw: Mapping[str, object]) -> dict[str, str]:
    value = raw.get("environment")
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"environment must be an object, got {_kind(value)}")
    for name, text in value.items():
        if not isinstance(name, str) or not _ENVIRONMENT_NAME.fullmatch(name):
            raise InvalidInstance(
                f"environment: {str(name)[:80]!r} is no variable name (letters, digits and _, not"
                " starting with a digit)"
            )
        if not isinstance(text, str):
            raise InvalidRequest(f"environment.{name} must be a string, got {_kind(text)}")
        if "\x00" in text:
            raise InvalidInstance(f"environment.{name} must not contain a NUL character")
    return dict(value)
