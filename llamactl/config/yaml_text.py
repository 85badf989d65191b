"""Reading of a YAML config file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from llamactl.config.problems import ConfigError, shown

LARGEST_FILE_BYTES = 1 << 20


MOST_ALIASES = 32
"""Aliases of lists and mappings in one file; with more, a small file can mean gigabytes."""


def read_bytes(file: Path) -> bytes:
    with file.open("rb") as stream:
        content = stream.read(LARGEST_FILE_BYTES + 1)
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigError([f"{file}: is too large, at most {LARGEST_FILE_BYTES} bytes are allowed"])
    return content


class TextLoader(yaml.SafeLoader):
    """SafeLoader, but scalars stay text; duplicate keys and too many aliases are errors."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Build one node; count it when it repeats a list or mapping."""
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_alias and not isinstance(node, yaml.ScalarNode):
            self.aliases += 1
            if self.aliases > MOST_ALIASES:
                mark = None if parent is None else parent.start_mark
                raise yaml.MarkedYAMLError(problem="too many aliases", problem_mark=mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Build one mapping; the seed's YAML library refuses a key that comes twice, too."""
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
        """The text of a scalar, whatever type its tag asks for."""
        return self.construct_yaml_str(node)


# Of the rules by which plain scalars get a type, only those for null and for merge keys (<<).
TextLoader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0].endswith((":null", ":merge"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(file: Path) -> object:
    """The document in ``file``. Raises ConfigError, with the line where there is one."""
    try:
        return yaml.load(read_bytes(file), Loader=TextLoader)  # noqa: S506  derived from SafeLoader
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
        raise ConfigError([f"{file}: is not valid YAML: an escape that is no character"]) from None
