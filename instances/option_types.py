"""Field types of the instance options: accepted values, error texts, JSON schema."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from instances.backends.registry import BACKENDS, backend_for, default_backend_type
from instances.backends.shell_words import replaced_character
from instances.errors import InvalidInstance
from instances.option_document import SHOWN_CHARACTERS, json_kind
from llamactl.core.errors import InvalidRequest

MAX_COUNT = 2**31 - 1
MAX_PATH_BYTES = 4095
MAX_LINES_BYTES = 256 * 1024
ENVIRONMENT_NAME_PATTERN = r"[A-Za-z_][A-Za-z0-9_]*"
_ENVIRONMENT_NAME = re.compile(ENVIRONMENT_NAME_PATTERN, re.ASCII)
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-zA-Z0-9-]{1,63}(\.[a-zA-Z0-9-]{1,63})*", re.ASCII)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")


def _no_control_characters(text: str) -> str:
    if _CONTROL_CHARACTER.search(text):
        raise ValueError(f"must not contain control characters: {text[:SHOWN_CHARACTERS]!r}")
    return text


Text = Annotated[str, AfterValidator(_no_control_characters)]
"""One line of text."""


def _shell_words(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"can't be split into words as by a shell: {error}") from None
    for word in words:
        if character := replaced_character(word):
            raise ValueError(
                f"has {character} in {word[:SHOWN_CHARACTERS]!r}, which no program understands;"
                " type the hyphen, quote or blank that it stands for"
            )
    return text


ShellWords = Annotated[Text, AfterValidator(_shell_words)]
"""One line of words, quoted as for a shell."""


@dataclass(frozen=True)
class SeveralLines:
    """Marks a text option that the admin's form shows in several lines."""


def _lines(text: str) -> str:
    text = text.replace("\r\n", "\n")
    if _CONTROL_CHARACTER.search(text.replace("\n", "").replace("\t", "")):
        raise ValueError("must not contain control characters other than line breaks and tabs")
    size = len(text.encode())
    if size > MAX_LINES_BYTES:
        raise ValueError(f"must be at most {MAX_LINES_BYTES} bytes long, got {size}")
    return text


Lines = Annotated[str, AfterValidator(_lines), SeveralLines()]
"""Text of several lines."""


def _absolute(path: str) -> str:
    if path and not path.startswith("/"):
        raise ValueError(f"must be an absolute path on the node, got {path[:SHOWN_CHARACTERS]!r}")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"must be at most {MAX_PATH_BYTES} bytes long")
    return path


AbsolutePath = Annotated[Text, AfterValidator(_absolute)]
"""An absolute path, or an empty text."""

MAX_ALIASES = 32
MAX_ALIAS_CHARACTERS = 200


def _aliases(names: list[str]) -> list[str]:
    if len(names) > MAX_ALIASES:
        raise ValueError(f"must be at most {MAX_ALIASES}, got {len(names)}")
    for name in names:
        is_text = name.isprintable() and name == name.strip()
        if not is_text or not 1 <= len(name) <= MAX_ALIAS_CHARACTERS:
            raise ValueError(
                f"must be texts of 1 to {MAX_ALIAS_CHARACTERS} printable characters, without blanks"
                f" at their ends; got {name[:SHOWN_CHARACTERS]!r}"
            )
    return list(dict.fromkeys(names))


def _image(name: str) -> str:
    if name.startswith("-") or any(map(str.isspace, name)):
        raise ValueError(f"must be the name of an image, got {name[:SHOWN_CHARACTERS]!r}")
    return name


ImageName = Annotated[Text, AfterValidator(_image)]
"""The name of a container image, which docker would otherwise take for a flag."""

Aliases = Annotated[list[str], AfterValidator(_aliases)]
"""Further names of an instance, each once; any printable characters, such as those of a hub's
``owner/model:tag``."""

Count = Annotated[
    int,
    Field(le=MAX_COUNT),
    AfterValidator(lambda count: max(count, 0)),
    WithJsonSchema({"type": "integer", "minimum": 0}, mode="serialization"),
]
"""A whole number; a negative one becomes 0, as in the seed."""


class _RegisteredBackends:
    """JSON schema of a backend type: the registry's types at the time the schema is made."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "enum": list(BACKENDS)}


BackendType = Annotated[
    Text,
    AfterValidator(lambda name: backend_for(name or default_backend_type()).type),
    _RegisteredBackends(),
]
"""Type of a registered backend. Raises UnknownBackend."""


def _normal_backend_options(raw: object, info: ValidationInfo) -> object:
    """Return the backend's options in normal form, if their host is an address or a host name."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"backend_options must be an object, got {json_kind(raw)}")
    backend_type = info.data.get("backend_type")
    if backend_type is None:
        return {}  # the error of backend_type is the one to report
    options = backend_for(backend_type).normalise(raw)
    host = options.get("host")
    # The host becomes part of URLs.
    if isinstance(host, str) and not _HOST_NAME.fullmatch(host) and not _is_ip_address(host):
        raise InvalidInstance(
            f"backend_options.host must be an IP address or a host name, got"
            f" {host[:SHOWN_CHARACTERS]!r}; leave it out to listen on this machine alone"
        )
    return options


def _is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


BackendOptions = Annotated[dict[str, object], BeforeValidator(_normal_backend_options)]
"""Options of the backend's program, in the normal form of ``Backend.normalise``."""


def _variable_name(name: str) -> str:
    if not _ENVIRONMENT_NAME.fullmatch(name):
        raise InvalidInstance(
            f"environment: {name[:SHOWN_CHARACTERS]!r} is no variable name (letters, digits and _,"
            " not starting with a digit)"
        )
    return name


Environment = Annotated[
    dict[
        Annotated[str, AfterValidator(_variable_name)],
        str,
    ],
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": f"^{ENVIRONMENT_NAME_PATTERN}$"},
            "additionalProperties": {"type": "string"},
        }
    ),
]
"""Environment variables: name → value."""


def _known_nodes(names: list[str], info: ValidationInfo) -> list[str]:
    config = info.context
    if config is None:
        return names
    known = {config.local_node, *config.nodes}
    for name in names:
        if name not in known:
            raise InvalidInstance(
                f"node {name[:SHOWN_CHARACTERS]!r} not found; known nodes:"
                f" {', '.join(sorted(known))}"
            )
    return sorted(set(names)) or [config.local_node]


NodeNames = Annotated[list[str], AfterValidator(_known_nodes)]
"""Names of configured nodes, sorted; an empty list means the local node."""
