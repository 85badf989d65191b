"""The port among an instance's options: chosen by the operator, or left to llamactl."""

from __future__ import annotations

from collections.abc import Container

from instances.models import Instance
from instances.options import InstanceOptions
from instances.ports import choose_port
from llamactl.config import AppConfig
from llamactl.core.errors import LlamactlError


def without_port(options: InstanceOptions) -> tuple[InstanceOptions, int | None]:
    """Return the options without the port, and the port that the operator chose, if any."""
    backend_options = dict(options.backend_options)
    port = backend_options.pop("port", None)
    wanted = port if isinstance(port, int) and port > 0 else None
    return options.model_copy(update={"backend_options": backend_options}), wanted


def kept_port(assigned: int | None, taken: Container[int], config: AppConfig) -> int | None:
    """Return the port that an import would keep, or None if the port can't be had."""
    if assigned is None:
        return None
    try:
        return choose_port(assigned, taken, config)
    except LlamactlError:
        return None


def fixed_port_of(instance: Instance) -> int | None:
    """Return the port that the operator chose; None for an instance with any free port."""
    port = instance.options["backend_options"].get("port")
    return port if isinstance(port, int) else None


def stored_document(options: InstanceOptions, fixed_port: int | None) -> dict[str, object]:
    """Return the document to save; it holds ``port`` only if the operator chose the port."""
    document = options.to_document()
    if fixed_port is not None:
        document["backend_options"] = {**options.backend_options, "port": fixed_port}
    return document
