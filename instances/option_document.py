"""Base model of the option documents: strict JSON types, defaults, error texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator

from instances.errors import InvalidInstance
from llamactl.core.errors import InvalidRequest, LlamactlError
from llamactl.core.json_values import check_values

if TYPE_CHECKING:
    from llamactl.config import AppConfig

SHOWN_CHARACTERS = 80
"""Longest part of a client's value that an error text repeats."""


@dataclass(frozen=True)
class DefaultFrom:
    """Default of an option that the config decides when a document is parsed.

    A saved document holds the value, so a later change of the config leaves the instance alone.
    """

    value: Callable[[AppConfig], object]


@dataclass(frozen=True)
class AtLaunch:
    """Mark of an option that a process gets at its start: a change of it takes a new process.

    An option without the mark takes effect on the running process.
    """

    in_command: bool = False
    """Whether command line, environment and working directory of the launch express the option:
    the same launch in other words takes no new process."""
    in_docker: bool = True
    """Whether the option has an effect on a container."""


class OptionDocument(BaseModel):
    """JSON object with one field per option.

    ``null`` is the same as a missing option. JSON types are strict: ``"5"`` is no number.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    _names: ClassVar[tuple[str, ...]] = ()
    _static_defaults: ClassVar[dict[str, object]] = {}
    _loaders: ClassVar[dict[str, Callable[[Any], object]]] = {}
    """Option → function that turns its saved value into the field's; a copy of a container."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        fields = cls.model_fields.items()
        cls._names = tuple(cls.model_fields)
        cls._static_defaults = {
            name: field.default for name, field in fields if not field.is_required()
        }
        cls._loaders = {
            name: loader
            for name, field in fields
            if (loader := _loader(field.annotation)) is not None
        }

    @classmethod
    def parse(cls, raw: object, config: AppConfig) -> Self:
        """Check a document from outside and fill in the config's defaults.

        Raises InvalidRequest (wrong JSON type) or InvalidInstance (a rule of an option).
        """
        try:
            # Of an API's document this is known; an admin's form and an import have JSON too.
            check_values(raw)
        except ValueError as error:
            raise InvalidInstance(str(error)) from None
        try:
            return cls.model_validate(raw, context=config)
        except ValidationError as error:
            raise _refusal(error) from None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Load a document that ``to_document`` made, without checking its values again.

        A release may tighten a rule, and the rows of the release before must still load.

        Raises KeyError, TypeError or ValueError for a document of another shape.
        """
        values = {
            name: document[name] if name in document else cls._static_defaults[name]
            for name in cls._names
        }
        for name, load in cls._loaders.items():
            if name in document:
                values[name] = load(values[name])
        # By the way of unpickling: model_construct takes 19 µs, this 7, and the routing table loads
        # every row of the database at each refresh.
        loaded = cls.__new__(cls)
        loaded.__setstate__(
            {
                "__dict__": values,
                "__pydantic_fields_set__": set(values),
                "__pydantic_extra__": None,
                "__pydantic_private__": None,
            }
        )
        return loaded

    def to_document(self) -> dict[str, object]:
        """Return the document to save and to show; static defaults are left out."""
        return self.model_dump(exclude_defaults=True)

    @classmethod
    def config_defaults(cls, config: AppConfig) -> dict[str, object]:
        """Return the defaults that ``config`` decides, by option."""
        return {
            name: default.value(config)
            for name, field in cls.model_fields.items()
            for default in field.metadata
            if isinstance(default, DefaultFrom)
        }

    @classmethod
    def at_launch(cls) -> dict[str, AtLaunch]:
        """Return the options that a process gets at its start."""
        return {
            name: mark
            for name, field in cls.model_fields.items()
            for mark in field.metadata
            if isinstance(mark, AtLaunch)
        }

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, raw: object, info: ValidationInfo) -> object:
        if not isinstance(raw, Mapping):
            return raw
        given = {name: value for name, value in raw.items() if value is not None}
        return given if info.context is None else cls.config_defaults(info.context) | given


def refuse_unknown_names(document: type[OptionDocument], raw: object, option: str) -> object:
    """Return ``raw``, the value of ``option``, if it has no field that ``document`` has not.

    Raises InvalidInstance.
    """
    for name in raw if isinstance(raw, dict) else ():
        if name not in document.model_fields:
            raise InvalidInstance(
                f"{option}: {str(name)[:SHOWN_CHARACTERS]!r} is not known; there are"
                f" {', '.join(document.model_fields)}"
            )
    return raw


def is_same_document(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Return whether two documents say the same: ``1`` is not ``true``, and order is nothing."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def json_kind(value: object) -> str:
    """Return the JSON type of ``value`` for an error text: ``a list``."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")


_JSON_TYPES = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "an object",
    "string_type": "a string",
}
"""pydantic's code of a type error → the type that the option has."""


def _refusal(error: ValidationError) -> LlamactlError:
    """Return the first error of a document as the API reports it."""
    first = error.errors(include_url=False)[0]
    kind, value, context = first["type"], first["input"], first.get("ctx", {})
    option = ".".join(str(part)[:SHOWN_CHARACTERS] for part in first["loc"])
    if not option:
        return InvalidRequest(
            f"Invalid request body: expected a JSON object, got {json_kind(value)}"
        )
    if kind in _JSON_TYPES:
        return InvalidRequest(f"{option} must be {_JSON_TYPES[kind]}, got {json_kind(value)}")
    shown = str(value)[:SHOWN_CHARACTERS]
    rules = {
        "greater_than_equal": f"must be at least {context.get('ge')}, got {shown}",
        "less_than_equal": f"must be at most {context.get('le')}, got {shown}",
        "value_error": str(context.get("error")),
    }
    return InvalidInstance(f"{option} {rules.get(kind, first['msg'])}")


def _loader(annotation: Any) -> Callable[[Any], object] | None:
    if isinstance(annotation, type) and issubclass(annotation, OptionDocument):
        return annotation.from_document
    container = get_origin(annotation)
    return container if container in (dict, list) else None
