"""Types of the configuration's values: the parser of each and its rule."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

LARGEST_INT = 2**31 - 1
YEAR_SECONDS = 366 * 24 * 3600


class ExpandsHome:
    """Mark of a field in which a leading ``~/`` means the home directory."""


def allowed(rule: str) -> WrapValidator:
    """Report any failure of a type as "must be ``rule``", whichever of its checks failed."""

    def check(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except (ValidationError, ValueError, ArithmeticError) as error:
            raise PydanticCustomError("not_allowed", "must be {rule}", {"rule": rule}) from error

    return WrapValidator(check)


def parse_flow(value: object, kind: type[list[object]] | type[dict[object, object]]) -> object:
    """Parse the text of a list or mapping: ``'["a", "b"]'`` → ``["a", "b"]``.

    A variable may hold a list as YAML writes it, for the Go program expands variables in the file's
    text. Other text, also if it only looks like a list, is returned unchanged.
    """
    if not isinstance(value, str) or not value.startswith("[" if kind is list else "{"):
        return value
    try:
        parsed: object = yaml.load(value, Loader=yaml.BaseLoader)  # noqa: S506  texts alone
    except (yaml.YAMLError, RecursionError):
        return value
    return parsed if isinstance(parsed, kind) else value


def split_commas(value: object) -> object:
    """``"a, b"`` → ``["a", "b"]``; blanks around items and empty items are dropped."""
    value = parse_flow(value, list)
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, list):
        stripped = [item.strip() if isinstance(item, str) else item for item in items]
        return [item for item in stripped if item != ""]
    return items


def split_words(value: object) -> object:
    """``'run -v "/my models:/m"'`` → ``["run", "-v", "/my models:/m"]``, as a shell splits words.

    Raises ValueError for a quote that is never closed.
    """
    value = parse_flow(value, list)
    return shlex.split(value) if isinstance(value, str) else value


def parse_pairs(value: object, *, separator: str = ",") -> object:
    """``"A=1,B=2"`` → ``{"A": "1", "B": "2"}``; a piece without ``=`` continues the value before.

    So ``CUDA_VISIBLE_DEVICES=0,1`` is one variable. Raises ValueError for a first piece without
    ``=``. A value that is not text is returned unchanged.
    """
    value = parse_flow(value, dict)
    if not isinstance(value, str):
        return value
    pairs: dict[str, str] = {}
    name = ""
    for piece in value.split(separator):
        key, equals, text = piece.strip().partition("=")
        if equals:
            name = key.strip()
            pairs[name] = text
        elif name:
            pairs[name] += separator + piece
        elif piece.strip():
            raise ValueError(f"no = in {len(piece)} characters")
    return pairs


def parse_header_pairs(value: object) -> object:
    """``"X-A=1;X-B=2"`` → ``{"X-A": "1", "X-B": "2"}``: header values may have commas."""
    return parse_pairs(value, separator=";")


def parse_port_range(value: object) -> object:
    """``"8000-9000"`` or ``"8000,9000"``, blanks allowed → ``["8000", "9000"]``."""
    value = parse_flow(value, list)
    if isinstance(value, str):
        return re.split(r"\s*[-,]\s*", value.strip())
    return value


_DURATION_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_DURATION_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"  # Go takes both mu signs


def refuse_bool(value: object) -> object:
    """Refuse a boolean for a number: pydantic would take True for 1."""
    if isinstance(value, bool):
        raise ValueError("a bool")
    return value


def parse_duration(value: object) -> object:
    """Parse Go's durations (``1h30m``, ``500ms``) to seconds; a bare number is in seconds.

    A bare number of 1e9 or more is in nanoseconds, as GET /api/v1/config shows durations.
    """
    refuse_bool(value)
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(f"({_DURATION_PART})+", text, re.ASCII):
            parts = re.findall(_DURATION_PART, text, re.ASCII)
            return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
        value = float(text)
    if isinstance(value, (int, float)) and value >= 1e9:
        return value / 1e9
    return value


def parse_optional(value: object) -> object:
    """Read empty text (``${REDIS_URL:-}``) as unset."""
    return None if isinstance(value, str) and not value.strip() else value


def null_is_empty(kind: Callable[[], object]) -> BeforeValidator:
    """Read a key without a value in YAML as an empty list or mapping."""
    return BeforeValidator(lambda value: kind() if value is None else value)


def _check_environment(pairs: dict[str, str]) -> dict[str, str]:
    if any(not name or "=" in name for name in pairs):
        raise ValueError("a bad name")
    return pairs


def _check_headers(pairs: dict[str, str]) -> dict[str, str]:
    for name, text in pairs.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError("a bad name")
        # A line break would start another header. HTTP allows Latin-1 without control characters.
        if re.search(r"[^\t\x20-\x7e\xa0-\xff]", text):
            raise ValueError("a bad value")
    return pairs


def _check_url(*schemes: str) -> AfterValidator:
    def check(url: SecretStr | None) -> SecretStr | None:
        if url is not None and urlsplit(url.get_secret_value()).scheme not in schemes:
            raise ValueError("another scheme")
        return url

    return AfterValidator(check)


def _check_address(address: str) -> str:
    parts = urlsplit(address)
    if address and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError("no URL")
    if not address.isprintable() or " " in address:  # urlsplit drops line breaks silently
        raise ValueError("no URL")
    if parts.port == 0:  # .port raises ValueError for text
        raise ValueError("no port")
    return address.rstrip("/")


_URL_PATH = re.compile(r"(/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*/?")


def _check_public_url(url: str) -> str:
    """Return the URL without the slash at its end; scheme and host in small letters."""
    if not url:
        return ""
    parts = urlsplit(url)
    is_plain = not (parts.username is not None or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise ValueError("no URL")
    if not url.isascii() or not re.fullmatch(r"[^\s\\?#@]+", url):
        raise ValueError("a bad character")
    if not _URL_PATH.fullmatch(parts.path):
        raise ValueError("a bad path")
    port = parts.port  # raises ValueError for text
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_default = port in (None, {"http": 80, "https": 443}[parts.scheme])
    return f"{parts.scheme}://{host}{'' if is_default else f':{port}'}{parts.path.rstrip('/')}"


def _check_port_range(ports: tuple[int, int]) -> tuple[int, int]:
    if ports[0] >= ports[1]:
        raise ValueError("start is not below end")
    return ports


Text = Annotated[str, Field(min_length=1), allowed("a string that is not empty")]

NAME_PATTERN = r"^[^\s/\x00-\x1f\x7f]{1,100}$"

Name = Annotated[
    str,
    Field(pattern=NAME_PATTERN),
    allowed("1 to 100 characters without spaces and slashes"),
]

Switch = Annotated[bool, allowed("true or false")]

Int = Annotated[int, BeforeValidator(refuse_bool)]

Port = Annotated[Int, Field(ge=1, le=65535), allowed("a port number from 1 to 65535")]

NextPort = Annotated[
    Annotated[Int, Field(ge=0, le=65535)] | None,
    BeforeValidator(parse_optional),
    allowed("a port number from 1 to 65535, 0 for none, or empty for the one after server.port"),
]

PortRange = Annotated[
    tuple[Port, Port],
    BeforeValidator(parse_port_range),
    AfterValidator(_check_port_range),
    allowed("two ports from 1 to 65535, the first below the second, such as [8000, 9000]"),
]

Limit = Annotated[
    Int, Field(ge=-1, le=LARGEST_INT), allowed("a whole number from 0, or -1 for no limit")
]

Count = Annotated[Int, Field(ge=0, le=LARGEST_INT), allowed("a whole number from 0")]

PositiveInt = Annotated[Int, Field(ge=1, le=LARGEST_INT), allowed("a whole number from 1")]

Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0, le=YEAR_SECONDS, allow_inf_nan=False),
    allowed("a duration (seconds, or a form such as 90s, 5m or 1h30m) above 0 and up to 366 days"),
]

SecondsOrZero = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0, le=YEAR_SECONDS, allow_inf_nan=False),
    allowed("a duration (seconds, or a form such as 90s, 5m or 1h30m) from 0 to 366 days"),
]

HomePath = Annotated[Path, ExpandsHome, allowed("a path")]

OptionalHomePath = Annotated[Path | None, ExpandsHome, allowed("a path")]

CommaList = Annotated[
    list[str],
    null_is_empty(list),
    BeforeValidator(split_commas),
    allowed("a list of strings, or one string with commas between them"),
]

KeyList = Annotated[
    list[SecretStr],
    null_is_empty(list),
    BeforeValidator(split_commas),
    allowed("a list of keys, or one string with commas between them"),
]

Words = Annotated[
    list[str],
    null_is_empty(list),
    BeforeValidator(split_words),
    Field(repr=False),  # Django's error pages don't hide "--api-key …" in a list
    allowed(
        "a list of strings, or one string with spaces between them, quoted as in a shell (a quote"
        " has to be closed)"
    ),
]

Environment = Annotated[
    dict[str, str],
    null_is_empty(dict),
    BeforeValidator(parse_pairs),
    AfterValidator(_check_environment),
    Field(repr=False),  # may hold HF_TOKEN
    allowed("a mapping of names to strings, or NAME=value pairs with commas between them"),
]

Headers = Annotated[
    dict[str, str],
    null_is_empty(dict),
    BeforeValidator(parse_header_pairs),
    AfterValidator(_check_headers),
    allowed(
        "a mapping of header names to strings without line breaks, "
        "or Name=value pairs with semicolons between them"
    ),
]

DatabaseUrl = Annotated[
    SecretStr | None,
    BeforeValidator(parse_optional),
    _check_url("postgres", "postgresql"),
    allowed("a postgres:// URL (database.path is for an SQLite file)"),
]

RedisUrl = Annotated[
    SecretStr | None,
    BeforeValidator(parse_optional),
    _check_url("redis", "rediss", "unix"),
    allowed("a redis://, rediss:// or unix:// URL"),
]

Secret = Annotated[SecretStr | None, BeforeValidator(parse_optional), allowed("a string")]

PublicUrl = Annotated[
    str,
    AfterValidator(_check_public_url),
    allowed(
        "a URL such as https://llm.example/llm/, without user, query and percent signs, or empty"
    ),
]

Address = Annotated[
    str,
    AfterValidator(_check_address),
    allowed("a URL that begins with http:// or https://, or empty for the local node"),
]
