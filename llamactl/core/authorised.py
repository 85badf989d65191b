"""Mark of a request whose key is valid, for our server: it never closes one to make room."""

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
