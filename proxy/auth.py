"""Whose request this is, and what its key may do."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode

from keys.credentials import key_in
from keys.secrets import digest
from proxy.errors import InvalidKey, MissingKey
from proxy.table.table import KeyRule, RoutingTable


def without_key(query: bytes) -> bytes:
    """The query string without ``api_key``: the backend has no business knowing it."""
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
