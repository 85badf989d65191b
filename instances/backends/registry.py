"""Which backend is meant by a ``backend_type``?"""

from __future__ import annotations

from instances.backends.base import Backend, UnknownBackend
from instances.backends.llama_cpp.backend import LlamaCpp
from instances.backends.mlx.backend import Mlx
from instances.backends.vllm.backend import Vllm

BACKENDS: dict[str, Backend] = {backend.type: backend for backend in (LlamaCpp(), Vllm(), Mlx())}
BACKEND_TYPES = tuple(BACKENDS)


def backend_for(backend_type: str) -> Backend:
    """The backend of the seed's ``backend_type``. Raises UnknownBackend."""
    try:
        return BACKENDS[backend_type]
    except KeyError:
        raise UnknownBackend(backend_type, BACKEND_TYPES) from None
