"""docs/proxy.md names files that exist, and the figures of the code."""

from __future__ import annotations

import re

from proxy.upstream.pool import KEEP_ALIVE_SECONDS
from proxy.upstream.response import BUFFER_BYTES
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "proxy.md").read_text()


def test_the_files_it_names_are_there() -> None:
    named = re.findall(r"`((?:proxy|llamactl)/[a-z0-9_/]+\.py)`", PAGE)
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_its_figures_are_those_of_the_code() -> None:
    assert f"kept for {KEEP_ALIVE_SECONDS:g} s" in PAGE
    assert f"one buffer of {BUFFER_BYTES // 1024} KiB" in PAGE


def test_the_pages_it_points_to_are_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert links
    assert all((ROOT / "docs" / link).is_file() for link in links)
