"""OpenAPI schemas of the instance options, made from their pydantic models."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import extend_schema_field
from pydantic import Field, TypeAdapter
from rest_framework import serializers

from instances.limits import ResourceLimits
from instances.option_types import Environment
from instances.options import InstanceOptions
from instances.request_options import RequestOptions

Schema = dict[str, Any]

_COMPONENT_NAMES = {
    ResourceLimits.__name__: "Limits",
    RequestOptions.__name__: "RequestDefaults",
}
_REQUEST = (
    "Options of an instance. `null` means the same as a missing option: its default (but a"
    " `backend_type` of `null` is refused). Unknown names are ignored with a warning, and a"
    " negative count becomes 0."
)
_RESPONSE = "Options of an instance, defaults filled in."


class ReplacedOptions(InstanceOptions):
    """Options of an existing instance; the instance stays on its node."""

    nodes: Any = Field(description="Must be known, but an instance stays on its node: a warning.")


# The cast: drf-spectacular's type hints admit serializers only; ``OptionsExtension`` adds models.
shows_options = extend_schema_field(cast("Any", InstanceOptions))
"""Decorator of a serializer's field or method that returns an options document."""


@shows_options
class OptionsField(serializers.DictField):
    """Options in a response."""


@extend_schema_field(TypeAdapter(Environment).json_schema())
class EnvironmentField(serializers.DictField):
    """Environment variables of a process."""


class OptionsExtension(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Component of an options model: ``Options`` in requests, ``SavedOptions`` in responses.

    drf-spectacular's own extension for pydantic makes one schema for both.
    """

    target_class = InstanceOptions
    match_subclasses = True
    priority = 1

    def get_name(self, auto_schema: AutoSchema, direction: str) -> str:
        if self.target is ReplacedOptions:
            return "ReplacedOptions"
        return "Options" if direction == "request" else "SavedOptions"

    def map_serializer(self, auto_schema: AutoSchema, direction: str) -> Schema:
        is_request = direction == "request"
        schema = options_schema(self.target, is_request=is_request)
        for name, part in schema.pop("$defs", {}).items():
            component = ResolvedComponent(  # type: ignore[no-untyped-call]
                name=_COMPONENT_NAMES.get(name, name),
                type=ResolvedComponent.SCHEMA,
                object=name,
                schema=part,
            )
            auto_schema.registry.register_on_missing(component)
        return schema


def options_schema(model: type[InstanceOptions], *, is_request: bool) -> Schema:
    """Return the JSON schema of ``model``, for a request or for a response."""
    schema = model.model_json_schema(
        ref_template="#/components/schemas/{model}",
        mode="validation" if is_request else "serialization",
    )
    parts = schema.get("$defs", {})
    for part in (schema, *parts.values()):
        part["properties"] = {
            name: _property(value, is_nullable=is_request or part is not schema)
            for name, value in part["properties"].items()
        }
        part.pop("title", None)
    if is_request:
        schema.pop("required", None)
    schema["description"] = _REQUEST if is_request else _RESPONSE
    return schema


def _property(value: Schema, *, is_nullable: bool) -> Schema:
    """Return the schema of one option, without pydantic's titles and defaults.

    ``null`` is allowed in every request, and never occurs in a response.
    """
    value = {key: part for key, part in value.items() if key not in ("title", "default")}
    alternatives = [part for part in value.pop("anyOf", []) if part != {"type": "null"}]
    if len(alternatives) == 1:
        value |= alternatives[0]
    if "$ref" in value:
        name = value.pop("$ref").rpartition("/")[2]
        reference = {"$ref": f"#/components/schemas/{_COMPONENT_NAMES.get(name, name)}"}
        value["oneOf" if is_nullable else "allOf"] = [reference]
    if is_nullable:
        if "oneOf" in value:
            value["oneOf"] = [*value["oneOf"], {"type": "null"}]
        elif "type" in value:
            value["type"] = [value["type"], "null"]
        if "enum" in value:
            value["enum"] = [*value["enum"], None]
    return value
