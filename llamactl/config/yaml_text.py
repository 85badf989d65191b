"""YAML reader that leaves scalars as text and refuses a duplicate key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from llamactl.config.problems import ConfigError, shown

LARGEST_FILE_BYTES = 1 << 20


def read_bytes(file: Path) -> bytes:
    """Read a small file. Raises OSError, and ConfigError for a file over the limit."""
    with file.open("rb") as stream:
        content = stream.read(LARGEST_FILE_BYTES + 1)
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigError([f"{file}: is too large, at most {LARGEST_FILE_BYTES} bytes are allowed"])
    return content


class TextLoader(yaml.SafeLoader):
    """SafeLoader that keeps scalars as text and refuses duplicate keys."""

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


def read_yaml(file: Path) -> object:
    """Read the document in ``file``. Raises ConfigError, with a line number if YAML has one."""
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
        raise ConfigError(
            [f"{file}: is not valid YAML: an escape is not a Unicode character"]
        ) from None
