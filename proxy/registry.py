"""Registry of the requests in flight of this web process: what runs now, and its cancellation.

A request is registered from the moment that it is routed until it has ended. To register it costs
one entry of a dict; everything that a list shows is read when the list is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from itertools import islice
from time import perf_counter
from typing import Generic, Protocol, TypeVar

from instances.scheduling.web_query import RequestDocument
from instances.states import Status
from llamactl.core.asgi_types import Scope
from proxy.errors import RequestCancelled
from proxy.exchange import Exchange
from proxy.observe.counting import completion_so_far
from proxy.table.table import KeyRule, Target

MAX_LISTED = 1000
"""Requests of one list: each takes 10 µs of the event loop, which no stream may wait for long."""
MAX_PATH_CHARACTERS = 200


class LiveRequest(Protocol):
    """A routed request."""

    @property
    def exchange(self) -> Exchange:
        """The request's exchange, as far as it has come."""

    @property
    def scope(self) -> Scope:
        """The client's request."""

    def cancel(self, error: RequestCancelled) -> bool:
        """End the request with the error, unless it is ending already."""


R = TypeVar("R", bound=LiveRequest)


class Registry(Generic[R]):
    """The routed requests of a web process, by id, oldest first."""

    def __init__(self) -> None:
        self._requests: dict[str, R] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def begin(self, request: R) -> None:
        """Register a request until ``end``."""
        self._requests[request.exchange.id] = request

    def end(self, exchange: Exchange) -> None:
        """Drop a request that has ended, or was refused before it was routed."""
        self._requests.pop(exchange.id, None)

    def requests(self) -> list[R]:
        return list(self._requests.values())

    def documents(self, targets: Mapping[str, Target]) -> list[RequestDocument]:
        """Describe the oldest requests, ``MAX_LISTED`` at most."""
        now = perf_counter()
        oldest = islice(self._requests.values(), MAX_LISTED)
        return [document_of(request, targets, now) for request in oldest]

    def cancel(self, request_id: str, targets: Mapping[str, Target]) -> RequestDocument | None:
        """Cancel a request; returns it as it was before, or ``None`` for an unknown id."""
        request = self._requests.get(request_id)
        if request is None:
            return None
        before = document_of(request, targets, perf_counter())
        return before if request.cancel(RequestCancelled()) else None


def document_of(request: LiveRequest, targets: Mapping[str, Target], now: float) -> RequestDocument:
    """Describe a request, without its query, which may hold a key."""
    exchange, scope = request.exchange, request.scope
    exchange.count_bytes()
    rule = exchange.rule
    return {
        "id": exchange.id,
        "client_request_id": exchange.client_id or None,
        "key": _key_name(rule),
        "key_id": None if rule is None else rule.id,
        "instance": exchange.instance,
        "method": scope.get("method", "GET"),
        "path": scope["path"][:MAX_PATH_CHARACTERS],
        "phase": phase_of(exchange, targets.get(exchange.instance)),
        "elapsed_seconds": round(now - exchange.received_at, 3),
        "tokens": completion_so_far(exchange),
        "bytes": exchange.bytes_to_client,
        "client": client_address(scope),
    }


def phase_of(exchange: Exchange, target: Target | None) -> str:
    """The phase of a request; ``target`` is its instance as the table has it now."""
    if exchange.first_byte_at is not None:
        return "streaming"
    if exchange.is_waiting:
        is_loading = target is not None and target.status in (Status.STARTING, Status.RESTARTING)
        return "loading" if is_loading else "queued"
    return "prefill" if exchange.sent_at is not None else "queued"


def _key_name(rule: KeyRule | None) -> str:
    if rule is None or (rule.id is None and not rule.is_management):
        return "anonymous"
    return "management" if rule.is_management else rule.name


def client_address(scope: Scope) -> str | None:
    """The client's address; of a reverse proxy on this machine, the last that it passes on.

    As for Django (``llamactl.asgi``): other machines could write what they like.
    """
    client = scope.get("client")
    address = str(client[0]) if client else ""
    if not address:
        return None  # a socket of the Unix domain has none
    if _is_this_machine(address):
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                address = _valid(value.decode("latin-1").rpartition(",")[2].strip()) or address
    return address


def _is_this_machine(address: str) -> bool:
    return _valid(address) is not None and ip_address(address).is_loopback


def _valid(address: str) -> str | None:
    try:
        ip_address(address)
    except ValueError:
        return None
    return address
