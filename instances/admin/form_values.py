"""Conversion of instance options to the texts of form fields, and back."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256

from django.forms import ValidationError

from instances.backends.option_fields import OptionField
from instances.backends.registry import BACKENDS
from instances.names import MAX_NAME_LENGTH
from llamactl.core.sanitize import fits_input_field, sanitize_json

OPTION_FIELDS: dict[str, OptionField] = {
    field.option: field
    for backend in reversed(BACKENDS.values())
    for row in backend.option_fields
    for field in row
}
"""Option → its field of the form. Where backends differ, the registry's first one counts."""

SHORT_OPTIONS: dict[str, tuple[str, ...]] = {
    backend.type: tuple(field.option for row in backend.option_fields for field in row)
    for backend in BACKENDS.values()
}
"""Backend type → options with a field of their own; other options stand in the JSON field."""

MAX_JSON_CHARACTERS = 512 * 1024
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,9}\.[0-9]{1,9}", re.ASCII)
_LINE_BREAK = re.compile(r"\r\n?|\n")


def to_fields(backend_type: str, options: Mapping[str, object]) -> dict[str, str]:
    """Return backend options as form texts: short options by name, the rest in ``further_options``.

    ``to_value`` and ``parse_object`` restore exactly the same options. A value that a line of text
    would change goes into the JSON.
    """
    fields: dict[str, str] = {}
    rest: dict[str, object] = {}
    short = {*SHORT_OPTIONS.get(backend_type, ()), "port"}
    for name, value in options.items():
        text = _to_text(name, value) if name in short else None
        if text is None:
            rest[name] = value
        else:
            fields[name] = text
    fields["further_options"] = sanitize_json(rest) if rest else ""
    return fields


def to_value(name: str, text: str) -> int | float | str:
    """Return the value of a short field's text: a number if the text and the option allow one."""
    field = OPTION_FIELDS.get(name)
    if field is None or not field.is_text:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _DECIMAL.fullmatch(text):
            return float(text)
    return text


def _to_text(name: str, value: object) -> str | None:
    """Return the text that ``to_value`` converts to ``value``; None if there is no such text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value)
    if not text or not fits_input_field(text):
        return None
    back = to_value(name, text)
    return text if back == value and type(back) is type(value) else None


def to_lines(environment: Mapping[str, str]) -> str:
    """Return variables as ``NAME=value`` lines; a value is quoted as JSON where necessary."""
    return "\n".join(f"{name}={_to_line(value)}" for name, value in environment.items())


def _to_line(value: str) -> str:
    return value if fits_input_field(value) and not value.startswith('"') else sanitize_json(value)


def parse_lines(text: str) -> dict[str, str]:
    """Return variables from lines, as the inverse of ``to_lines``; blank lines are skipped.

    Raises ValidationError.
    """
    environment: dict[str, str] = {}
    for number, line in enumerate(_LINE_BREAK.split(text), start=1):
        if not line.strip():
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise ValidationError(f"line {number}: write NAME=value")
        if name in environment:
            raise ValidationError(f"line {number}: {name[:80]} was set before")
        if value.startswith('"'):
            try:
                value = json.loads(value)
            except ValueError:
                raise ValidationError(
                    f'line {number}: a value that begins with " must be a JSON string'
                ) from None
        environment[name] = value
    return environment


def parse_object(text: str) -> dict[str, object]:
    """Return the JSON object in ``text``, ``{}`` for a blank text. Raises ValidationError."""
    if not text.strip():
        return {}
    if len(text) > MAX_JSON_CHARACTERS:
        raise ValidationError(f"longer than {MAX_JSON_CHARACTERS} characters")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValidationError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValidationError(
            f"no valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except ValueError as error:
        raise ValidationError(f"no valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValidationError('must be a JSON object: {"option": value}')
    return value


def fingerprint(document: Mapping[str, object]) -> str:
    """Return a hash that detects a concurrent change of an options document."""
    text = json.dumps(document, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def suggested_name(fields: Mapping[str, str], alias: object = None) -> str:
    """Return an instance name: the alias, the file's stem, or the repository's last part."""
    first = alias[0] if isinstance(alias, list) and alias else alias
    named = first.partition(",")[0].strip() if isinstance(first, str) else ""
    source = named or fields.get("model") or fields.get("hf_repo") or ""
    last = re.split(r"[\\/]", source.partition(":")[0].rstrip("/\\"))[-1].removesuffix(".gguf")
    return re.sub(r"[^a-zA-Z0-9._-]+", "-", last).strip("-.")[:MAX_NAME_LENGTH]


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counted = Counter(name for name, _ in pairs)
        twice = next(name for name, number in counted.items() if number > 1)
        raise ValueError(f"{twice[:80]!r} is there twice")
    return value


def _no_constant(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON number")
