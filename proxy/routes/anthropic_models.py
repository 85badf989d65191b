"""GET /v1/models in Anthropic's shape, for requests with the header ``anthropic-version``."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs

from llamactl.core.errors import InvalidRequest
from proxy.routes.models import Model

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000
"""Both are Anthropic's."""


def anthropic_model(model: Model) -> dict[str, object]:
    created_at = datetime.fromtimestamp(model.created, UTC)
    entry: dict[str, object] = {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": created_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "lifecycle": "active",
    }
    if model.context_length is not None:
        entry |= {"max_input_tokens": model.context_length, "max_tokens": model.context_length}
    return entry


def anthropic_page(models: list[Model], query: bytes) -> dict[str, object]:
    """The page of the list that ``limit``, ``after_id`` and ``before_id`` ask for.

    Raises InvalidRequest (400).
    """
    # Every parameter that Anthropic does not have is ignored, such as ``api_key`` and ``beta``.
    parameters = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    given = {name: values[-1] for name, values in parameters.items()}
    limit = _limit(given.get("limit"))
    after, before = given.get("after_id"), given.get("before_id")
    if after is not None and before is not None:
        raise InvalidRequest("after_id and before_id must not be given together")
    if before is not None:
        preceding = models[: _place(models, "before_id", before)]
        page = preceding[-limit:]
        has_more = len(preceding) > limit
    else:
        start = 0 if after is None else _place(models, "after_id", after) + 1
        page = models[start : start + limit]
        has_more = len(models) > start + limit
    return {
        "data": [anthropic_model(model) for model in page],
        "has_more": has_more,
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
    }


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    is_number = text.isascii() and text.isdigit() and len(text) < 5
    if not (is_number and 1 <= int(text) <= MAX_LIMIT):
        raise InvalidRequest(
            f"limit must be a whole number from 1 to {MAX_LIMIT}, got {text[:80]!r}"
        )
    return int(text)


def _place(models: list[Model], name: str, model_id: str) -> int:
    for place, model in enumerate(models):
        if model.id == model_id:
            return place
    raise InvalidRequest(f"{name} must be the id of a model of the list, got {model_id[:80]!r}")
