"""Token counts of a response, from the figures that the backend gives in it.

The figures are in a member ``usage``, by the names of OpenAI's APIs or of Anthropic's, and in
llama.cpp's ``timings``. Where a response has both, ``usage`` gives the counts, and ``timings`` the
tokens of speculative decoding, which llama.cpp tells nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

LARGEST_COUNT = 2**32
"""A larger number is no count of one response, and would overflow the sums in the database."""

Figures = Mapping[str, object]


class Tokens(NamedTuple):
    """The token counts of one response, or of several together."""

    prompt: int = 0
    """All tokens of the prompt, also the cached ones."""
    cached: int = 0
    """Tokens of the prompt that the backend took from its cache."""
    completion: int = 0
    drafted: int = 0
    """Tokens that a draft model proposed (speculative decoding)."""
    accepted: int = 0
    """Drafted tokens that the model accepted; they count in ``completion`` too."""
    is_estimated: bool = False
    """Whether the backend did not give the counts, and they are made from a response's events."""


NO_TOKENS = Tokens()


def tokens_in(document: object) -> Tokens | None:
    """The counts in a response's document, or in one event of a stream; None without any.

    llama.cpp answers several prompts at once with a list of documents.
    """
    if isinstance(document, list):
        return _sum(found for each in document if (found := _in_object(each)) is not None)
    return _in_object(document)


def tokens_from(usage: Figures | None, timings: Figures | None) -> Tokens | None:
    """The counts in a ``usage`` and in llama.cpp's ``timings``; None without any."""
    if usage is None:
        return None if timings is None else _from_timings(timings)
    prompt, cached, completion = _from_usage(usage)
    if timings is None:
        accepted, drafted = _predicted(usage)
        return Tokens(prompt, cached, completion, drafted, accepted)
    return Tokens(
        prompt,
        # Older builds of llama.cpp tell the cached tokens in the timings alone.
        cached or min(_count(timings, "cache_n"), prompt),
        completion,
        _count(timings, "draft_n"),
        _count(timings, "draft_n_accepted"),
    )


def _in_object(document: object) -> Tokens | None:
    if not isinstance(document, dict):
        return None
    usage, timings = document.get("usage"), document.get("timings")
    if usage is None:
        # Events of the Responses API (response.completed) and of Anthropic's (message_start).
        inner = document.get("response") or document.get("message")
        if isinstance(inner, dict):
            usage = inner.get("usage")
    if not isinstance(usage, dict):
        usage = None
    if not isinstance(timings, dict):
        timings = None
    return tokens_from(usage, timings)


def _from_usage(usage: Figures) -> tuple[int, int, int]:
    """Tokens of the prompt, those of them that were cached, and of the completion."""
    if "prompt_tokens" in usage:
        cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
        return _count(usage, "prompt_tokens"), cached, _count(usage, "completion_tokens")
    prompt, completion = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if "input_tokens_details" in usage:  # the Responses API, and OpenAI's transcriptions
        return prompt, _detail(usage, "input_tokens_details", "cached_tokens"), completion
    # Anthropic's counts of the prompt add up; OpenAI's include the cached tokens.
    cached = _count(usage, "cache_read_input_tokens")
    prompt += cached + _count(usage, "cache_creation_input_tokens")
    if not prompt and not completion:
        # A rerank of Jina's shape has the sum alone.
        prompt = _count(usage, "total_tokens")
    return prompt, cached, completion


def _from_timings(timings: Figures) -> Tokens:
    cached = _count(timings, "cache_n")
    return Tokens(
        # ``prompt_n`` are the tokens that were computed.
        _count(timings, "prompt_n") + cached,
        cached,
        _count(timings, "predicted_n"),
        _count(timings, "draft_n"),
        _count(timings, "draft_n_accepted"),
    )


def _predicted(usage: Figures) -> tuple[int, int]:
    """OpenAI's accepted and drafted tokens of a predicted output."""
    accepted = _detail(usage, "completion_tokens_details", "accepted_prediction_tokens")
    rejected = _detail(usage, "completion_tokens_details", "rejected_prediction_tokens")
    return accepted, accepted + rejected


def _detail(usage: Figures, group: str, name: str) -> int:
    details = usage.get(group)
    return _count(details, name) if isinstance(details, dict) else 0


def _count(figures: Figures, name: str) -> int:
    """The count of this name; 0 for anything that is none."""
    value = figures.get(name)
    # A bool is an int too. llama.cpp says -1 for "unknown".
    return value if type(value) is int and 0 < value <= LARGEST_COUNT else 0


def _sum(several: Iterable[Tokens]) -> Tokens | None:
    found = list(several)
    if not found:
        return None
    prompt, cached, completion, drafted, accepted, _ = map(sum, zip(*found, strict=True))
    return Tokens(prompt, cached, completion, drafted, accepted)
