"""Keys in the OpenAPI document: the kinds of keys, and their places in a request."""

from __future__ import annotations

from enum import StrEnum

from drf_spectacular.extensions import OpenApiAuthenticationExtension

_SCHEMES: dict[str, dict[str, str]] = {
    "Bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": (
            "`Authorization: Bearer <key>`. A **management key** opens everything; an"
            " **inference key** opens `/v1` and `/llama-cpp` alone, for all instances or for chosen"
            " ones. This header takes precedence over the other two places."
        ),
    },
    "ApiKeyAuth": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key in a header of its own.",
    },
    "ApiKeyQuery": {
        "type": "apiKey",
        "in": "query",
        "name": "api_key",
        "description": (
            "The same key in the URL, for programs that can't set a header. URLs end up in logs and"
            " histories: prefer a header."
        ),
    },
}

REQUIREMENT: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
"""Any one of the three. One mapping with three names would require all at once."""


class Key(StrEnum):
    """Sentence on the required key, in the description of an operation."""

    MANAGEMENT = "Needs a **management key**."
    INFERENCE = "Needs an **inference key** for the instance, or a management key."
    NONE = "Needs no key."


class ManagementKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Security schemes: the three places for a key."""

    target_class = "keys.authentication.ManagementKeyAuthentication"
    name = list(_SCHEMES)

    def get_security_definition(self, auto_schema: object) -> list[dict[str, str]]:
        return list(_SCHEMES.values())

    def get_security_requirement(self, auto_schema: object) -> list[dict[str, list[str]]]:
        return REQUIREMENT
