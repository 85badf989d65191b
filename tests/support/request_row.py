"""Records of requests with usual values."""

from __future__ import annotations

from keys.usage.request_row import RequestRow

USUAL = RequestRow(
    request_id="5d0f8a4c2b7e4f1f9a3c6b8d7e2f1a0b",
    client_request_id="",
    ended_at=1_700_000_000.0,
    key_id=1,
    instance="demo",
    path="/v1/chat/completions",
    status=200,
    outcome="answered",
    prompt_tokens=21,
    cached_tokens=0,
    completion_tokens=9,
    drafted_tokens=0,
    accepted_tokens=0,
    is_estimated=False,
    queue_seconds=0.0,
    load_seconds=0.0,
    first_byte_seconds=0.05,
    total_seconds=0.25,
    request_bytes=300,
    response_bytes=400,
)


def request_row(request_id: str) -> RequestRow:
    return USUAL._replace(request_id=request_id)
