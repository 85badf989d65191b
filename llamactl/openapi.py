"""What the OpenAPI document says about keys, errors and plain text, for all apps' schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
)
from rest_framework import serializers

PLAIN_TEXT = "text/plain"

_View = TypeVar("_View", bound=Callable[..., Any])


class ErrorSerializer(serializers.Serializer[Any]):
    """The seed's error body; some errors have further fields."""

    error = serializers.CharField(help_text="A code for programs, such as invalid_instance.")
    details = serializers.CharField(help_text="A sentence for people, and what to do.")


class _AuthenticationProblemSerializer(serializers.Serializer[Any]):
    message = serializers.ChoiceField(["Missing API key", "Invalid API key"])
    type = serializers.ChoiceField(["authentication_error"])


class AuthenticationErrorSerializer(serializers.Serializer[Any]):
    """What a request without a good key gets."""

    error = _AuthenticationProblemSerializer()


ERROR_MEANINGS = {
    400: "A field, a parameter or the body breaks a rule; details names it.",
    404: "There is no such thing.",
    409: "Not in the state that things are in now.",
    500: "A program that was asked failed, or llamactl has a fault (see its log).",
    502: "The backend failed to start; reason, exit_code and log_tail say why.",
    503: "Not ready yet, or not reachable now; Retry-After says when to try again.",
}


def operation(
    tag: str,
    summary: str,
    *,
    status: int = 200,
    answer: object = None,
    media_type: str = "application/json",
    errors: Iterable[int] = (),
    description: str = "",
    request: object = None,
    parameters: Iterable[OpenApiParameter] = (),
    others: Mapping[int, object] | None = None,
    examples: Iterable[OpenApiExample] = (),
) -> Callable[[_View], _View]:
    """The decorator of one operation; 401 is said of each, as each can answer it.

    ``answer`` is a serializer, a type, a schema, or None for an empty answer; ``others`` are the
    answers of further good statuses.
    """
    refusals = {error: OpenApiResponse(ErrorSerializer, ERROR_MEANINGS[error]) for error in errors}
    refusals[401] = OpenApiResponse(AuthenticationErrorSerializer, "The key is missing or wrong.")
    decorate: Callable[[_View], _View] = extend_schema(
        tags=[tag],
        summary=summary,
        description=description,
        request=request,
        parameters=list(parameters),
        responses={(status, media_type): answer, **(others or {}), **refusals},
        examples=list(examples),
    )
    return decorate


class ManagementKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The three places for a management key; one of them is enough."""

    target_class = "keys.authentication.ManagementKeyAuthentication"
    name = ["Bearer", "ApiKeyAuth", "ApiKeyQuery"]

    def get_security_definition(self, auto_schema: object) -> list[dict[str, str]]:
        return [
            {"type": "http", "scheme": "bearer"},
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            {"type": "apiKey", "in": "query", "name": "api_key"},
        ]

    def get_security_requirement(self, auto_schema: object) -> list[dict[str, list[str]]]:
        # One mapping with three names would ask for all three at once.
        return [{name: []} for name in self.name]
