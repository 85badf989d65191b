"""The effective configuration without secrets, for ``check_config`` and ``GET /api/v1/config``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, SecretStr

from llamactl.config.app_config import AppConfig
from llamactl.config.problems import ConfigError, dotted, printable
from llamactl.config.schema import (
    BackendConfig,
    BackendSections,
    DatabaseConfig,
    DockerConfig,
    backend_key,
)
from llamactl.config.sources import load
from llamactl.masking import MASK, mask_arguments, mask_document, mask_url, mask_values

DESCRIPTION = "Checks the configuration and prints each value with the source that sets it."
FILE_HELP = "check this file instead of the configured one"


def redacted(
    config: AppConfig, *, version: str = "", commit_hash: str = "", build_time: str = ""
) -> dict[str, object]:
    """Return the answer of GET /api/v1/config: the seed's keys and shapes, with ours beside them.

    Management keys, inference keys and the ``api_key`` of a node are left out, even masked.
    Passwords in URLs and values of environments are masked.
    """
    server = config.server.model_dump()
    if not server["response_headers"]:
        del server["response_headers"]
    instances = config.instances.model_dump(mode="json")
    if not instances["group_limits"]:
        del instances["group_limits"]
    return {
        "server": server,
        "backends": {backend_key(name): _backend(section) for name, section in config.backends},
        "instances": instances,
        "database": _database(config.database),
        "redis": {"url": _url(config.redis.url)},
        "auth": {
            "require_inference_auth": config.auth.require_inference_auth,
            "inference_keys": [],
            "require_management_auth": config.auth.require_management_auth,
            "management_keys": [],
        },
        "local_node": config.local_node,
        "nodes": {name: {"address": mask_url(node.address)} for name, node in config.nodes.items()},
        "data_dir": str(config.data_dir),
        "version": version,
        "commit_hash": commit_hash,
        "build_time": build_time,
    }


def _database(database: DatabaseConfig) -> dict[str, object]:
    return {
        "path": str(database.path),
        "url": _url(database.url),
        "max_open_connections": database.max_open_connections,
        "max_idle_connections": database.max_idle_connections,
        # The seed's unit is the nanosecond.
        "connection_max_lifetime": round(database.connection_max_lifetime * 1e9),
    }


def _backend(backend: BackendConfig) -> dict[str, object]:
    document: dict[str, object] = {
        "command": backend.command,
        "args": mask_arguments(backend.args),
    }
    if backend.environment:
        document["environment"] = mask_values(backend.environment)
    if backend.docker is not None:
        document["docker"] = _docker(backend.docker)
    if backend.response_headers:
        document["response_headers"] = mask_document(backend.response_headers)
    for name in type(backend).model_fields.keys() - BackendConfig.model_fields.keys():
        if (value := getattr(backend, name)) is not None:
            document[name] = mask_document(str(value) if isinstance(value, Path) else value, name)
    return document


def _docker(docker: DockerConfig) -> dict[str, object]:
    document: dict[str, object] = {
        "enabled": docker.enabled,
        "image": docker.image,
        "args": mask_arguments(docker.args),
    }
    if docker.environment:
        document["environment"] = mask_values(docker.environment)
    return document


def _url(url: SecretStr | None) -> str | None:
    return None if url is None else mask_url(url.get_secret_value())


def values(config: AppConfig) -> Iterator[tuple[str, str, str]]:
    """Yield each effective value as ``(dotted key, masked value, origin)``."""
    return _values(config, (), config)


def _values(
    model: BaseModel, path: tuple[str, ...], config: AppConfig
) -> Iterator[tuple[str, str, str]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        here = (*path, name)
        if isinstance(value, BaseModel):
            yield from _values(value, here, config)
        elif name == "nodes":
            for node_name, node in value.items():
                yield from _values(node, (*here, node_name), config)
        elif name == "environment":
            if not value:
                yield dotted(here), "{}", config.origin(here)
            for variable, text in mask_values(value).items():
                yield dotted((*here, variable)), text, config.origin((*here, variable))
        else:
            yield dotted(here), _text(name, value), config.origin(here)


def _text(name: str, value: object) -> str:
    """Write one value as in the file, on one line."""
    if name == "args" and isinstance(value, list):
        value = mask_arguments(value)
    if isinstance(value, SecretStr):
        return mask_url(value.get_secret_value()) if name == "url" else MASK
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_text('', item) for item in value)}]"
    if isinstance(value, dict):
        pairs = (f"{key}: {_text('', item)}" for key, item in mask_document(value).items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, float):
        return f"{value:g}s"
    return mask_url(str(value)) or "''"


def main(argv: Sequence[str], backends: BackendSections) -> int:
    """Run ``check_config [FILE]``: print the effective values, or the errors. Return 0 or 2.

    Django's settings stay unloaded: loading fails while the configuration is broken.
    """
    parser = argparse.ArgumentParser(
        prog="manage.py check_config",
        description=DESCRIPTION,
    )
    parser.add_argument("file", nargs="?", type=Path, help=FILE_HELP)
    options = parser.parse_args(argv)
    try:
        config = load(backends=backends, config_path=options.file)
    except ConfigError as error:
        for warning in error.warnings:
            print(f"warning: {warning}", file=sys.stderr)  # noqa: T201  this is a command
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)  # noqa: T201
        return 2
    for warning in config.config_warnings:
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201
    for key, value, origin in values(config):
        print(printable(f"{key} = {value}  # {origin}"))  # noqa: T201
    return 0
