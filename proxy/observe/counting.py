"""Token counts of an ended exchange: the backend's figures, or an estimate from the events."""

from __future__ import annotations

from proxy.exchange import Exchange, Outcome
from proxy.observe.response_reader import ResponseReader, tokens_of_body
from proxy.observe.tokens import NO_TOKENS, Tokens

EVENTS_WITHOUT_CONTENT = {
    "/v1/chat/completions": 1,  # the role
    "/v1/messages": 2,  # message_start, content_block_start
    "/v1/responses": 4,  # created, in_progress, output_item.added, content_part.added
}
"""Path → events of a stream that come before its first token, with llama.cpp and vLLM."""
ENDING_EVENTS = 2
"""Of a stream that came to its end without figures: the finish reason and ``[DONE]``."""


def count_tokens(exchange: Exchange) -> None:
    """Read the token counts of an exchange that has ended, and drop its body."""
    body = exchange.body
    if body is None:
        return
    exchange.body = None
    if exchange.status != 200:
        return
    if isinstance(body, bytes):
        if body[:1] == b"{":
            exchange.tokens = tokens_of_body(body) or NO_TOKENS
            return
        body = ResponseReader(body)
    exchange.tokens = _tokens_read(exchange, body)


def completion_so_far(exchange: Exchange) -> int | None:
    """The completion tokens of a stream under way, by its events; None for any other response."""
    body = exchange.body
    if not isinstance(body, ResponseReader) or not body.is_stream or exchange.route is None:
        return None
    return max(0, body.events - EVENTS_WITHOUT_CONTENT.get(exchange.route.rest, 0))


def _tokens_read(exchange: Exchange, reader: ResponseReader) -> Tokens:
    found = reader.tokens()
    is_whole = exchange.outcome is Outcome.ANSWERED
    if found is not None and (is_whole or found.completion):
        return found
    if not reader.is_stream or exchange.route is None:
        return found or NO_TOKENS
    without_content = EVENTS_WITHOUT_CONTENT.get(exchange.route.rest, 0)
    if is_whole:
        without_content += ENDING_EVENTS
    completion = max(0, reader.events - without_content)
    return (found or NO_TOKENS)._replace(completion=completion, is_estimated=True)
