"""Mark of a request with a valid key, which the server never closes at its limit of connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamactl.core.asgi_types import Scope

_KEY = "llamactl.is_authorised"


def set_authorised(scope: Scope) -> None:
    """Mark the request. Layers copy the scope, but share its ``state``."""
    state = scope.get("state")
    if state is not None:
        state[_KEY] = True


def is_authorised(scope: Mapping[str, Any]) -> bool:
    return _KEY in scope["state"]
