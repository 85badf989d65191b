"""The values of a request's record before it is written."""

from __future__ import annotations

from typing import NamedTuple


class RequestRow(NamedTuple):
    """The columns of ``RequestRecord`` in the order of the table.

    A tuple, because up to five hundred a second are made on the event loop and kept for two
    seconds: a model instance costs ten times as much, and the exchange itself fifty objects.
    """

    request_id: str
    client_request_id: str
    ended_at: float
    key_id: int
    instance: str
    path: str
    status: int
    outcome: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    is_estimated: bool
    queue_seconds: float
    load_seconds: float
    first_byte_seconds: float | None
    total_seconds: float
    request_bytes: int
    response_bytes: int
