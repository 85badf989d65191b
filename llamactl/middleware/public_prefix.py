"""The path prefix of ``server.public_url``, below which a reverse proxy serves llamactl.

nginx's ``location /llm/ { proxy_pass http://127.0.0.1:8080/; }`` takes the prefix away, other
proxies leave it, and on this machine llamactl is reached without a proxy. So paths are accepted
with and without the prefix. The proxy's routes know paths without it; Django wants it in the path,
for the links and redirects that it builds.
"""

from __future__ import annotations

from llamactl.core.api_paths import ROUTER_PATHS
from llamactl.core.asgi_types import Application, Receive, Scope, Send

OWN_PATHS = frozenset(
    {"admin", "api", "docs", "healthz", "llama-cpp", "static", "swagger", "v1"}
    | {path.split("/")[1] for path in ROUTER_PATHS}
)
"""First parts of llamactl's own paths. A prefix that begins so is ambiguous, and never removed."""


class PrefixRemoval:
    """Removes the prefix from a request's path, where a reverse proxy has left the prefix."""

    def __init__(self, application: Application, prefix: str) -> None:
        self._application = application
        self._prefix = prefix
        self._raw_prefix = prefix.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = self._without_prefix(scope)
        await self._application(scope, receive, send)

    def _without_prefix(self, scope: Scope) -> Scope:
        path: str = scope["path"]
        raw_path: bytes = scope.get("raw_path") or b""
        rest = path.removeprefix(self._prefix)
        raw_rest = raw_path.removeprefix(self._raw_prefix)
        if rest == path or rest[:1] not in ("", "/"):
            return scope
        if raw_path and (raw_rest == raw_path or raw_rest[:1] not in (b"", b"/")):
            return scope  # the prefix in percent signs: no proxy sends that
        return {**scope, "path": rest or "/", "raw_path": (raw_rest or b"/") if raw_path else b""}


class PrefixAddition:
    """Adds the prefix to a request's path, for Django."""

    def __init__(self, application: Application, prefix: str) -> None:
        self._application = application
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": self._prefix + scope["path"], "root_path": self._prefix}
        await self._application(scope, receive, send)


def can_remove(prefix: str) -> bool:
    """Whether paths below ``prefix`` can't be paths of llamactl's own."""
    return bool(prefix) and prefix.split("/")[1] not in OWN_PATHS
