"""docs/add-a-backend.md leads to files and attributes that exist."""

from __future__ import annotations

import re

from instances.backends.base import Backend
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "add-a-backend.md").read_text()


def test_the_files_it_names_are_there() -> None:
    named = re.findall(r"`((?:instances|llamactl|tests)/[a-z0-9_/]+(?:\.py|/))`", PAGE)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_each_attribute_of_a_backend_is_explained() -> None:
    attributes = set(Backend.__annotations__)
    assert {name for name in attributes if f"`{name}`" not in PAGE} == set()


def test_each_attribute_said_to_have_no_default_has_none() -> None:
    rows = PAGE.partition("These have no default:")[2].partition("These have one")[0].splitlines()
    cells = [row.split("|")[1] for row in rows if row.startswith("| ")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == {name for name in Backend.__annotations__ if not hasattr(Backend, name)}
