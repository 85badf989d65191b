"""The record of an ended exchange, for the list of the last requests."""

from __future__ import annotations

from keys.usage.request_row import RequestRow
from proxy.exchange import Exchange

MAX_PATH_CHARACTERS = 200
MAX_CLIENT_ID_CHARACTERS = 128


def record_of(exchange: Exchange, key_id: int, clock_offset: float) -> RequestRow:
    """Describe an exchange; ``clock_offset``: the unix time at the zero of ``perf_counter``."""
    ended_at = exchange.ended_at if exchange.ended_at is not None else exchange.received_at
    sent_at, first_byte_at = exchange.sent_at, exchange.first_byte_at
    queue = 0.0
    if exchange.queued_at is not None:
        waited_until = ended_at if sent_at is None else sent_at
        queue = max(0.0, waited_until - exchange.queued_at - exchange.loading_seconds)
    first_byte = None
    if sent_at is not None and first_byte_at is not None:
        first_byte = first_byte_at - sent_at
    path = "" if exchange.route is None else exchange.route.rest.partition("?")[0]
    tokens = exchange.tokens
    return RequestRow(
        request_id=exchange.id,
        client_request_id=(exchange.client_id or "")[:MAX_CLIENT_ID_CHARACTERS],
        ended_at=clock_offset + ended_at,
        key_id=key_id,
        instance=exchange.instance,
        # PostgreSQL takes no NUL in a text.
        path=path[:MAX_PATH_CHARACTERS].replace("\0", ""),
        status=exchange.status,
        outcome=exchange.outcome.value,
        prompt_tokens=tokens.prompt,
        cached_tokens=tokens.cached,
        completion_tokens=tokens.completion,
        drafted_tokens=tokens.drafted,
        accepted_tokens=tokens.accepted,
        is_estimated=tokens.is_estimated,
        queue_seconds=queue,
        load_seconds=exchange.loading_seconds,
        first_byte_seconds=first_byte,
        total_seconds=ended_at - exchange.received_at,
        request_bytes=exchange.bytes_to_backend,
        response_bytes=exchange.bytes_to_client,
    )
