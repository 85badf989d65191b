"""``Location`` of a backend's response, kept within the backend.

A client follows a redirect with its prompt, and with its key if the key is in ``X-API-Key``. So a
backend may only name paths of its own; a client must not be led to another host, nor to the paths
of llamactl itself.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

from proxy.errors import ForeignRedirect
from proxy.headers import Pairs
from proxy.routes.routes import Route, RouteKind

MAX_LOCATION_BYTES = 8 * 1024

_PLAIN = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/?\[\]-]+(?:#[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?")
"""No backslash, blank or control character, which browsers read in their own ways."""
_BEGINNING = re.compile(r"(?:https?:)?//[^/]|(?!//|[a-z][a-z0-9+.-]*:)", re.IGNORECASE)
"""A URL with a host, or a path: browsers find a host in ``http:x`` and ``///x`` too."""
_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?:[/?#]|\Z)", re.IGNORECASE)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - compared only


def with_own_location(
    headers: Pairs,
    route: Route,
    origin: str,
    instance: str,
    path_and_query: str,
    public_prefix: str = "",
) -> Pairs:
    """The headers with a ``Location`` below the paths of the instance.

    ``origin``: the backend's; ``path_and_query``: those of the request to the backend;
    ``public_prefix``: the path below which the client reaches llamactl. Raises ForeignRedirect
    (502).
    """
    locations = [value for name, value in headers if name == b"location"]
    if not locations:
        return headers
    if len(locations) > 1 or len(locations[0]) > MAX_LOCATION_BYTES:
        raise ForeignRedirect(instance)
    found = _own_path(locations[0].decode("latin-1"), origin, path_and_query)
    prefix = _prefix(route, instance)
    if found is None or (not prefix and not found.startswith("/v1/")):
        raise ForeignRedirect(instance)
    location = (b"location", (public_prefix + prefix + found).encode())
    return [location if pair[0] == b"location" else pair for pair in headers]


def _own_path(location: str, origin: str, path_and_query: str) -> str | None:
    """Path, query and fragment of a location on the backend, or ``None`` for another one."""
    if not _PLAIN.fullmatch(location) or not _BEGINNING.match(location):
        return None
    if _DOT_SEGMENT.search(location.partition("?")[0]):
        return None
    try:
        target, own = urlsplit(urljoin(origin + path_and_query, location)), urlsplit(origin)
        hosts = {target.hostname, own.hostname}
        is_own_host = len(hosts) == 1 or hosts <= _LOOPBACK
        is_own = is_own_host and target.port == own.port and target.scheme == own.scheme
    except ValueError:
        return None
    if not is_own or target.username is not None or target.password is not None:
        return None
    path = target.path or "/"
    # Again, since "%2e%2e/stop" has its slash from the request's own path.
    if path.startswith("//") or _DOT_SEGMENT.search(path):
        return None
    query = f"?{target.query}" if target.query else ""
    return path + query + (f"#{target.fragment}" if target.fragment else "")


def _prefix(route: Route, instance: str) -> str:
    """The path below which llamactl serves the backend by this route."""
    if route.kind is RouteKind.INFERENCE:
        return ""
    if route.kind is RouteKind.INSTANCE:
        return f"/api/v1/instances/{instance}/proxy"
    if route.kind is RouteKind.ROUTER_MODELS:
        return f"/api/v1/llama-cpp/{instance}"
    return f"/llama-cpp/{instance}"
