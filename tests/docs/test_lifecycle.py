"""docs/lifecycle.md agrees with the code."""

from __future__ import annotations

import re

from instances.states import TRANSITIONS, Status
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "lifecycle.md").read_text()


def test_the_diagram_has_the_arrows_of_the_code_and_no_others() -> None:
    (diagram,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
    drawn = re.findall(r"^ +([a-z_]+) --> ([a-z_]+)$", diagram, re.MULTILINE)
    allowed = [(old.value, new.value) for old, news in TRANSITIONS.items() for new in news]
    assert sorted(drawn) == sorted(allowed)


def test_an_instance_begins_where_the_diagram_begins() -> None:
    from instances.models import Instance

    assert re.findall(r"\[\*\] --> ([a-z_]+)", PAGE) == [Instance().status]


def test_every_status_is_explained() -> None:
    assert re.findall(r"^\| `([a-z_]+)` \|", PAGE, re.MULTILINE) == [
        status.value
        for status in (
            Status.STOPPED,
            Status.STARTING,
            Status.RUNNING,
            Status.RESTARTING,
            Status.SHUTTING_DOWN,
            Status.FAILED,
        )
    ]


def test_the_pages_it_links_to_are_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert links
    assert all((ROOT / "docs" / link).is_file() for link in links)


def test_the_files_it_names_are_there() -> None:
    """The page is read beside the code: a moved file must move in the page, too."""
    paths = re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", PAGE)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_every_phase_of_an_instance_has_its_place_in_it() -> None:
    phases = (ROOT / "instances/supervisor/controller/phases").glob("*.py")
    shared = {"__init__.py", "factory.py", "phase.py"}
    assert [path.name for path in phases if path.name not in shared and path.name not in PAGE] == []
