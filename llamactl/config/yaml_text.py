"""YAML reader that leaves scalars as text, refuses a duplicate key and expands ``${NAME}``.

References are expanded in the file's text, as in the Go program, so that a reference works wherever
YAML allows a scalar: ``[ ${KEY} ]``, ``port: ${PORT}``, a key. A variable's value takes no part in
the syntax: the parser reads a mark in its place, and the scalar gets the value afterwards. So a
password with ``: `` or ``#`` needs no quotes. A default (``${NAME:-default}``) is the file's text.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from llamactl.config.problems import ConfigError, shown

LARGEST_FILE_BYTES = 1 << 20
_DESCRIPTORS = (Path("/dev/fd"), Path("/proc/self/fd"))

_REFERENCE = re.compile(rb"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_MARK = re.compile("\ue000[0-9]+\ue001")
"""Number of a reference between two private characters, which YAML takes for letters."""


class UnresolvedText(str):
    """A scalar with references to variables that are not set; the references stay in the text."""

    variables: tuple[str, ...]

    def __new__(cls, text: str, variables: tuple[str, ...]) -> UnresolvedText:
        made = super().__new__(cls, text)
        made.variables = variables
        return made


def open_file(file: Path) -> BinaryIO:
    """Open a file of the configuration. Raises OSError.

    A FIFO is refused, because its opening waits for a writer. A shell's ``<(…)`` has one.
    """
    if file.is_fifo() and file.parent not in _DESCRIPTORS:
        raise OSError(errno.EINVAL, "it is a FIFO")
    return file.open("rb")


def read_bytes(file: Path) -> bytes:
    """Read a small file. Raises OSError, and ConfigError for a file over the limit."""
    with open_file(file) as stream:
        content = stream.read(LARGEST_FILE_BYTES + 1)
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigError([f"{file}: is too large, at most {LARGEST_FILE_BYTES} bytes are allowed"])
    return content


class _References:
    """The references of one file: marks in the text, and the texts that replace the marks."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._names: dict[str, str] = {}
        """Mark → name of the variable."""

    def mark(self, content: bytes) -> bytes:
        """Replace each reference by its default if that applies, else by a mark."""

        def replace(match: re.Match[bytes]) -> bytes:
            name, default = match[1].decode(), match[2]
            if default is not None and not self._variables.get(name):
                return bytes(default)
            mark = f"\ue000{len(self._names)}\ue001"
            self._names[mark] = name
            return mark.encode()

        return _REFERENCE.sub(replace, content)

    def expand(self, scalar: str) -> str:
        """Replace the marks by values; a variable that is not set stays as it was written."""
        unset: list[str] = []

        def replace(match: re.Match[str]) -> str:
            name = self._names.get(match[0])
            if name is None:  # private characters of the file's own
                return match[0]
            if name not in self._variables:
                unset.append(name)
            return self._variables.get(name, f"${{{name}}}")

        text = _MARK.sub(replace, scalar)
        return UnresolvedText(text, tuple(unset)) if unset else text


class TextLoader(yaml.SafeLoader):
    """SafeLoader that keeps scalars as text and refuses duplicate keys."""

    def __init__(self, content: bytes, references: _References) -> None:
        super().__init__(references.mark(content))
        self._references = references

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Compose one scalar with its references expanded. An empty plain scalar is null."""
        scalar = super().compose_scalar_node(anchor)
        if "\ue000" in scalar.value:
            scalar.value = self._references.expand(scalar.value)
            if not scalar.value and scalar.style is None:
                scalar.tag = "tag:yaml.org,2002:null"
        return scalar

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose one mapping. The seed's YAML library refuses a duplicate key, too."""
        mapping = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in mapping.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {shown(key.value)} comes twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return mapping

    def construct_text(self, node: yaml.Node) -> str:
        """Construct the text of a scalar, whatever type its tag asks for."""
        return self.construct_yaml_str(node)


# Plain scalars keep two implicit types: null, and merge keys (<<).
TextLoader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0].endswith((":null", ":merge"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

for _tag in ("bool", "int", "float", "binary", "timestamp"):  # explicit tags, as in "!!int 5"
    TextLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", TextLoader.construct_text)


def read_yaml(file: Path, variables: Mapping[str, str]) -> object:
    """Read the document in ``file``. Raises ConfigError, with a line number if YAML has one."""
    try:
        loader = TextLoader(read_bytes(file), _References(variables))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except OSError as error:
        raise ConfigError([f"{file}: can't be read: {error.strerror}"]) from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        # A secret that begins with * or ! is taken for an alias or tag, and named in the message.
        problem = re.sub(r"(alias|tag) '.*'", r"\1", error.problem or "", flags=re.DOTALL)
        raise ConfigError([f"{file}{line}: is not valid YAML: {problem}"]) from None
    except yaml.reader.ReaderError as error:
        where = f"at position {error.position}"
        raise ConfigError([f"{file}: is not valid YAML: {error.reason} {where}"]) from None
    except RecursionError:
        raise ConfigError([f"{file}: is nested too deeply"]) from None
    except (ValueError, OverflowError):
        raise ConfigError(
            [f"{file}: is not valid YAML: an escape is not a Unicode character"]
        ) from None
