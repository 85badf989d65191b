"""Authentication of a request, and the permissions of its key."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode

from instances.errors import InstanceNotFound
from instances.names import validate_name
from keys.credentials import key_in
from keys.secrets import digest
from llamactl.core.asgi_types import Scope
from llamactl.core.authorised import set_authorised
from llamactl.core.errors import InvalidKey, MissingKey
from proxy.errors import InstanceNotPermitted
from proxy.gateway import Gateway
from proxy.table.table import UNRESTRICTED, KeyRule, RoutingTable, Target


def without_key(query: bytes) -> bytes:
    """The query string without ``api_key``, which is no business of the backend."""
    if b"api_key" not in query:
        return query
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return urlencode([pair for pair in pairs if pair[0] != "api_key"]).encode()


def rule_for(
    headers: Iterable[tuple[bytes, bytes]], query: bytes, table: RoutingTable, now: float
) -> KeyRule:
    """The rule of the request's key. Raises MissingKey or InvalidKey (401)."""
    key = key_in(headers, query)
    if not key:
        raise MissingKey
    rule = table.rule(digest(key), now)
    if rule is None:
        raise InvalidKey
    return rule


def authorise_by(
    table: RoutingTable, gateway: Gateway, scope: Scope, *, is_management: bool
) -> KeyRule:
    """The rule of the key of an HTTP request or a WebSocket, by this table alone.

    ``is_management``: an inference key is not enough. Raises MissingKey or InvalidKey (401).
    """
    auth = gateway.config.auth
    if not (auth.require_management_auth if is_management else auth.require_inference_auth):
        set_authorised(scope)
        return UNRESTRICTED
    rule = rule_for(scope["headers"], scope["query_string"], table, time.time())
    if is_management and not rule.is_management:
        raise InvalidKey
    set_authorised(scope)
    if rule.id is not None:
        gateway.usage.record(rule.id)
    return rule


def refuse_revoked(table: RoutingTable, rule: KeyRule | None, target: Target, now: float) -> None:
    """Refuse a request with a key that was revoked since it was admitted.

    Raises InvalidKey (401) for a key that is deleted or has expired, and InstanceNotPermitted
    (403) for one that may not use the target any more.
    """
    if rule is None or not rule.digest:
        return
    present = table.rule(rule.digest, now)
    if present is None:
        raise InvalidKey
    if not present.allows(target):
        raise InstanceNotPermitted


T = TypeVar("T")


async def admit(
    gateway: Gateway,
    scope: Scope,
    decide: Callable[[RoutingTable, Scope], T],
    *,
    is_management: bool,
) -> T:
    """The result of ``decide``, which refuses a wrong key by raising InvalidKey.

    Before the refusal the table is refreshed, and the key compared with those imported from the Go
    llamactl, whose hashes can't be looked up. Raises KeyNotCompared if that takes too long.
    """
    try:
        return await gateway.recheck.before_refusal(decide, scope)
    except InvalidKey:
        if is_management:
            raise
        key = key_in(scope["headers"], scope["query_string"])
        if not await gateway.imported_keys.recognise(key):
            raise
    return await gateway.recheck.before_refusal(decide, scope)


async def authorise(gateway: Gateway, scope: Scope, *, is_management: bool) -> KeyRule:
    """``authorise_by`` the table in memory; a refusal is rechecked by a refreshed table."""
    return await gateway.recheck.before_refusal(
        lambda table: authorise_by(table, gateway, scope, is_management=is_management)
    )


def target_named(table: RoutingTable, name: str) -> Target:
    """The instance that a path names. Raises InvalidInstanceName or InstanceNotFound."""
    target = table.targets.get(validate_name(name))
    if target is None:
        raise InstanceNotFound(name)
    return target
