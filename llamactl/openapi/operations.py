"""What does the OpenAPI document say about one operation of the management API?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiRequest,
    OpenApiResponse,
    extend_schema,
)

from llamactl.core.error_format import seed_document
from llamactl.core.errors import LlamactlError
from llamactl.openapi import errors as documented
from llamactl.openapi.keys import Key

JSON = "application/json"
PLAIN_TEXT = "text/plain"
EVENT_STREAM = "text/event-stream"

Examples = Mapping[str, object]
"""What an example shows → the example."""


@dataclass(frozen=True)
class DocumentedResponse:
    """An answer that an operation has beside its usual one."""

    content: object
    """A serializer, a type, or a schema."""
    examples: Examples
    status: int = 200
    media_type: str = JSON


_View = TypeVar("_View", bound=Callable[..., Any])
_RETRY_AFTER = OpenApiParameter(
    documented.RETRY_AFTER,
    int,
    OpenApiParameter.HEADER,
    description=documented.RETRY_AFTER_MEANING,
    response=[503],
)


def operation(
    tag: str,
    summary: str,
    *,
    name: str = "",
    status: int = 200,
    answer: object = None,
    answers: Examples | None = None,
    media_type: str = JSON,
    others: Iterable[DocumentedResponse] = (),
    errors: Iterable[int | LlamactlError] = (),
    description: str = "",
    request: object = None,
    requests: Examples | None = None,
    parameters: Iterable[OpenApiParameter] = (),
    uses_database: bool = True,
) -> Callable[[_View], _View]:
    """The decorator of one operation; 401 is said of each, as each can answer it.

    ``name`` is what generated clients call it; it is made from the path if none is said.
    ``answer`` is a serializer, a type, a schema, or None for an empty answer; ``answers`` are
    examples of it, and ``requests`` of the body. ``others`` are answers of another status or
    media type. An error in ``errors`` is its own example; a number is a status without one.
    """
    refusals = [error for error in errors if isinstance(error, LlamactlError)]
    if request is not None:
        refusals.append(documented.TOO_LARGE)
    if uses_database:
        refusals.append(documented.NO_DATABASE)
    examples = documented.by_status(refusals)
    statuses = sorted({error for error in errors if isinstance(error, int)} | set(examples))
    decorate: Callable[[_View], _View] = extend_schema(
        operation_id=name or None,
        tags=[tag],
        summary=summary,
        description=f"{description}\n\n{Key.MANAGEMENT}".strip(),
        request=None if request is None else OpenApiRequest(request, examples=_shown(requests)),
        parameters=[*parameters, *([_RETRY_AFTER] if 503 in statuses else [])],
        responses={
            **{
                (it.status, it.media_type): OpenApiResponse(
                    it.content, documented.MEANINGS[it.status], examples=_shown(it.examples)
                )
                for it in (DocumentedResponse(answer, answers or {}, status, media_type), *others)
            },
            **{it: _refusal(it, examples.get(it, [])) for it in statuses},
            401: _WITHOUT_A_KEY,
        },
    )
    return decorate


def _shown(examples: Examples | None) -> list[OpenApiExample]:
    return [OpenApiExample(name, value=value) for name, value in (examples or {}).items()]


def _refusal(status: int, examples: Iterable[LlamactlError]) -> OpenApiResponse:
    return OpenApiResponse(
        documented.reference("Error"),
        documented.MEANINGS[status],
        examples=[OpenApiExample(type(it).__name__, value=seed_document(it)) for it in examples],
    )


_WITHOUT_A_KEY = OpenApiResponse(
    documented.reference("AuthenticationError"),
    documented.MEANINGS[401],
    examples=[
        OpenApiExample(str(it["error"]["message"]), value=it) for it in documented.WITHOUT_A_KEY
    ],
)
