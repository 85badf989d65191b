"""Whose request this is: the key in it, and what that key may do."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode

from keys.secrets import digest
from proxy.errors import InvalidKey, MissingKey
from proxy.table import KeyRule, RoutingTable


def token_from(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> str | None:
    """The key: ``Authorization: Bearer``, then ``X-API-Key``, then ``?api_key=``.

    As in the seed, a Bearer header settles it even when its token is empty, and another kind of
    Authorization falls through.
    """
    api_key = None
    for name, value in headers:
        if name == b"authorization" and value.startswith(b"Bearer "):
            return _text(value[7:])
        if name == b"x-api-key" and api_key is None:
            api_key = _text(value)
    if api_key:
        return api_key
    if b"api_key" in query:
        for name_text, value_text in parse_qsl(query.decode("latin-1")):
            if name_text == "api_key":
                return value_text
    return None


def _text(value: bytes) -> str:
    return value.strip().decode("utf-8", "surrogateescape")


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
    token = token_from(headers, query)
    if not token:
        raise MissingKey
    rule = table.rule(digest(token), now)
    if rule is None:
        raise InvalidKey
    return rule
