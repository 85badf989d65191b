"""Request defaults of an instance: the ``request`` object of its options."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from instances.option_document import SHOWN_CHARACTERS, OptionDocument, refuse_unknown_names

MAX_FIELDS = 100
MAX_FIELD_CHARACTERS = 200
MAX_SET_BYTES = 64 * 1024


def _field(name: str) -> str:
    if name == "model":
        raise ValueError("must not name model, which routes the request; set the instance's model")
    if not 1 <= len(name) <= MAX_FIELD_CHARACTERS or not name.isprintable():
        raise ValueError(
            f"must be names of 1 to {MAX_FIELD_CHARACTERS} printable characters, got"
            f" {name[:SHOWN_CHARACTERS]!r}"
        )
    return name


def _fields(names: list[str]) -> list[str]:
    if len(names) > MAX_FIELDS:
        raise ValueError(f"must be at most {MAX_FIELDS}, got {len(names)}")
    for name in names:
        _field(name)
    return list(dict.fromkeys(names))


def _values(values: dict[str, object]) -> dict[str, object]:
    _fields(list(values))
    try:
        size = sum(map(len, (value_json(value) for value in values.values())))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:
        raise ValueError("must have JSON values, without NaN and Infinity") from None
    if size > MAX_SET_BYTES:
        raise ValueError(f"must be at most {MAX_SET_BYTES} bytes long, got {size}")
    return values


def value_json(value: object) -> bytes:
    """Return a value as JSON, integers of any size among them. Raises ValueError."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


class RequestOptions(OptionDocument):
    """Defaults for the JSON bodies of requests. A field that is dropped and set is the operator's
    in every request."""

    model_config = ConfigDict(extra="forbid")

    set: Annotated[dict[str, object], AfterValidator(_values)] = Field(
        default={},
        description="Fields that a request gets if it has none of this name, or null:"
        ' `{"temperature": 0.2}`.',
    )
    drop: Annotated[list[str], AfterValidator(_fields)] = Field(
        default=[],
        description="Names of fields that are taken out of a request, before `set`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_names(cls, raw: object) -> object:
        # A misspelt default that is ignored would be none. Options are lenient, as in the seed.
        return refuse_unknown_names(cls, raw, "request")
