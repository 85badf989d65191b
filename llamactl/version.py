"""Version of llamactl: the newest heading of CHANGELOG.md, its only place."""

from __future__ import annotations

import re
from pathlib import Path

_CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"


def read_version(changelog: str) -> str:
    """Read the first ``## x.y.z`` heading of a changelog. Raises ValueError without one."""
    match = re.search(r"^## (\d+\.\d+\.\d+\S*)", changelog, re.MULTILINE)
    if match is None:
        raise ValueError("CHANGELOG.md has no '## x.y.z' heading")
    return match.group(1)


VERSION = read_version(_CHANGELOG.read_text(encoding="utf-8"))
