"""docs/threat-model.md names tests and pages that exist."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "threat-model.md").read_text()


def test_the_tests_it_names_are_there() -> None:
    named = set(re.findall(r"`(tests/[^`]+)`", PAGE))
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_the_pages_it_points_to_are_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGE) if not link.startswith("#")]
    assert links
    assert all((ROOT / "docs" / link).is_file() for link in links)


def test_every_party_of_the_table_has_its_section() -> None:
    anchors = re.findall(r"\]\(#([^)]+)\)", PAGE)
    titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert anchors
    have = {title.lower().replace("'", "").replace(" ", "-") for title in titles}
    assert set(anchors) <= have
