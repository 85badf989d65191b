"""Description of one operation of the management API in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
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
"""Title of an example → the example."""


@dataclass(frozen=True)
class DocumentedResponse:
    """A response of an operation beside the usual one."""

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
    errors: Collection[int | LlamactlError] = (),
    description: str = "",
    request: object = None,
    requests: Examples | None = None,
    parameters: Iterable[OpenApiParameter] = (),
    uses_database: bool = True,
) -> Callable[[_View], _View]:
    """Decorate a view with the description of one operation. Each operation may answer 401.

    ``name`` is the operation's name in generated clients, by default made from the path.
    ``answer`` is a serializer, a type, a schema, or None for an empty response, and ``answers`` are
    its examples. ``requests`` are examples of the body. ``others`` are responses of another status
    or media type. An error in ``errors`` is its own example; a number is a status without example.
    """
    known = [error for error in errors if isinstance(error, LlamactlError)]
    known += [documented.TOO_LARGE] if request is not None else []
    known += [documented.NO_DATABASE] if uses_database else []
    refusals = _refusals(known, {error for error in errors if isinstance(error, int)})
    usual = DocumentedResponse(answer, answers or {}, status, media_type)
    decorate: Callable[[_View], _View] = extend_schema(
        operation_id=name or None,
        tags=[tag],
        summary=summary,
        description=f"{description}\n\n{Key.MANAGEMENT}".strip(),
        request=None if request is None else OpenApiRequest(request, examples=_shown(requests)),
        parameters=[*parameters, *([_RETRY_AFTER] if 503 in refusals else [])],
        responses={**_successes([usual, *others]), **refusals, 401: _WITHOUT_A_KEY},
    )
    return decorate


def _shown(examples: Examples | None) -> list[OpenApiExample]:
    return [OpenApiExample(name, value=value) for name, value in (examples or {}).items()]


def _successes(
    responses: Iterable[DocumentedResponse],
) -> dict[tuple[int, str], OpenApiResponse]:
    return {
        (it.status, it.media_type): OpenApiResponse(
            it.content, documented.MEANINGS[it.status], examples=_shown(it.examples)
        )
        for it in responses
    }


def _refusals(known: Iterable[LlamactlError], statuses: set[int]) -> dict[int, OpenApiResponse]:
    """Describe the statuses of ``known`` errors, with examples, and further ``statuses``."""
    examples = documented.by_status(known)
    return {it: _refusal(it, examples.get(it, [])) for it in sorted(statuses | set(examples))}


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
