"""The backends that llamactl knows, by their ``backend_type``."""

from __future__ import annotations

from instances.backends.base import Backend, UnknownBackend
from instances.backends.llama_cpp.backend import LlamaCpp
from instances.backends.mlx.backend import Mlx
from instances.backends.vllm.backend import Vllm
from llamactl.config.schema import BackendSection

BACKENDS: dict[str, Backend] = {
    backend.type: backend
    for backend in (
        LlamaCpp(),
        Vllm(),
        Mlx(),
    )
}
"""Type → backend. The first is the default of a new instance."""


def backend_types() -> tuple[str, ...]:
    """Return the values of ``backend_type`` in the API."""
    return tuple(BACKENDS)


def backend_choices() -> list[tuple[str, str]]:
    """Return types and titles, for the choices of a form."""
    return [(backend.type, backend.title) for backend in BACKENDS.values()]


def config_sections() -> dict[str, BackendSection]:
    """Return each backend's config section by its key, for ``llamactl.config.load``."""
    return {backend.config_name: backend.config_model for backend in BACKENDS.values()}


def default_backend_type() -> str:
    """Return the type of an instance without a ``backend_type`` in its options."""
    return next(iter(BACKENDS))


def backend_for(backend_type: str) -> Backend:
    """Find the backend of a ``backend_type``. Raises UnknownBackend."""
    try:
        return BACKENDS[backend_type]
    except KeyError:
        raise UnknownBackend(backend_type, backend_types()) from None
