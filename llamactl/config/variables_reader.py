"""Reader of the ``LLAMACTL_*`` variables, from the environment and from ``.env``."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_origin

from dotenv.parser import parse_stream

from llamactl.config.app_config import AppConfig
from llamactl.config.layers import Layer, LoadContext, field_at, suggestion
from llamactl.config.problems import ConfigError, FieldPath
from llamactl.config.types import parse_header_pairs, parse_pairs
from llamactl.config.variables import (
    KUBERNETES_NAME,
    KUBERNETES_PORT,
    other_variables_with,
    variables_with,
)
from llamactl.config.yaml_text import read_bytes


def read_variables(
    variables: Mapping[str, str], origin: Callable[[str], str], context: LoadContext
) -> Layer:
    """Read a layer from variables; ``origin`` gives the origin of a name.

    Unknown ``LLAMACTL_*`` names are warnings.
    """
    layer = Layer()
    known = variables_with(context.backends)
    others = other_variables_with(context.backends)
    for name, key in known.items():
        text = variables.get(name, "")
        # The seed takes an empty variable for an unset one; compose files rely on that.
        if text and not (name == "LLAMACTL_PORT" and KUBERNETES_PORT.match(text)):
            path = tuple(key.split("."))
            layer.put(path, _parse(text, path, context.model), origin(name), context)
    for name in sorted(variables):
        if not name.startswith("LLAMACTL_") or name in known:
            continue
        if name not in others and not KUBERNETES_NAME.fullmatch(name):
            guess = suggestion(name, [*known, *others])
            context.warnings.append(f"{origin(name)} is unknown and ignored{guess}")
        elif reason := others.get(name):
            context.warnings.append(f"{origin(name)} is ignored: {reason}")
    return layer


def _parse(text: str, path: FieldPath, model: type[AppConfig]) -> object:
    """Parse the text of a mapping here, before layers are merged, so that its keys are merged."""
    if get_origin(field_at(path, model).annotation) is not dict:
        return text
    try:
        return parse_header_pairs(text) if path[-1] == "response_headers" else parse_pairs(text)
    except ValueError:
        return text  # the field's type reports the problem


def find_dotenv(config_file: Path | None, context: LoadContext) -> tuple[Path, dict[str, str]]:
    """Find the first readable ``.env``, as the Go program does, and read it.

    The places: beside the explicitly named ``config_file``, the working directory, the user's and
    the system's config directory. An unreadable file is a warning, and the next place counts.
    """
    places = [context.cwd, *context.config_dirs]
    if config_file is not None:
        places.insert(0, config_file.parent)
    for place in places:
        try:
            content = read_bytes(place / ".env")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            context.warnings.append(f"{place / '.env'} is ignored: {error.strerror}")
        else:
            return place / ".env", parse_dotenv(content, place / ".env", context)
    return context.cwd / ".env", {}


def parse_dotenv(content: bytes, file: Path, context: LoadContext) -> dict[str, str]:
    """Parse ``NAME=value`` lines. Raises ConfigError for content that is not text.

    A bad line is an error if it names a ``LLAMACTL_`` variable, and otherwise a warning: the file
    may be another program's.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: must be UTF-8 text (byte {error.start} is not)"]) from None
    variables = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            line = f"{file}, line {binding.original.line}: must be NAME=value"
            is_ours = "LLAMACTL_" in binding.original.string
            (context.problems if is_ours else context.warnings).append(line)
        elif binding.key is not None and binding.value is not None:
            variables[binding.key] = binding.value
    return variables
