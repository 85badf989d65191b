"""The page of figures: tables between markers, goals, the plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.goals import goals
from bench.page import fill, image
from bench.results import Results, read
from bench.tables import SECTIONS
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "performance.md"


def row(system: str, clients: int, rate: float, **compared: float) -> dict[str, Any]:
    return {
        "subject": "requests",
        "scenario": f"{clients} clients",
        "mode": "requests",
        "clients": clients,
        "body_bytes": 300,
        "tps": 0.0,
        "system": system,
        "medians": {"requests_per_second": rate, "latency_p50_ms": 1.0, "latency_p99_ms": 2.0},
        "compared with direct": compared,
        "failures": {},
        "doubts": [],
    }


@pytest.fixture
def results(tmp_path: Path) -> Results:
    rows = [
        row("direct", 1, 20_000),
        row("direct", 64, 60_000),
        row("nginx", 64, 30_000),
        row("llamactl", 1, 3000, **{"latency_p50_ms added": 0.3}),
        row("llamactl", 64, 6000),
    ]
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"measured_on": {"processor": "one"}, "summary": rows}))
    return read([path])


def test_the_page_has_a_place_for_each_table() -> None:
    assert fill(PAGE.read_text(), Results()) == PAGE.read_text()


def test_new_figures_replace_the_old_ones_and_nothing_else(results: Results) -> None:
    page = "".join(
        f"before {name}\n<!-- bench:{name} -->\nold\n<!-- /bench:{name} -->\n" for name in SECTIONS
    )
    filled = fill(page, results)
    assert "| llamactl | 3,000 | 6,000 |" in filled
    # Nothing was measured of the supervisor: its table stays.
    assert "before supervisor\n<!-- bench:supervisor -->\nold\n" in filled
    assert fill(filled, results) == filled


def test_a_marker_that_no_table_belongs_to_is_refused(results: Results) -> None:
    with pytest.raises(ValueError, match="typo"):
        fill("<!-- bench:typo -->\n<!-- /bench:typo -->\n", results)


def test_goals_are_met_missed_or_not_measured(results: Results) -> None:
    found = {goal.text: goal for goal in goals(results)}
    rate = found["requests/s at 64 clients, key and routing on"]
    assert (rate.told, rate.is_met) == ("6,000", False)
    added = found["added to a request of one client (median)"]
    assert (added.told, added.is_met) == ("0.30 ms", True)
    assert found["the same, over LiteLLM's"].told == "not measured"


def test_disconnects_have_a_table_and_two_goals() -> None:
    gone = {"gone_p50_ms": 70.2, "gone_last_ms": 1200.4}
    left = row("llamactl", 1000, 0) | {"subject": "disconnects", "tps": 10.0, "medians": gone}
    results = Results(rows=[left | {"failures": {"streams that were not open": 2}}])
    assert SECTIONS["disconnects"](results).endswith("| llamactl, 1,000 x 10/s | 70 | 1,200 | 2 |")
    found = goals(results)
    at = next(at for at, goal in enumerate(found) if goal.told == "1,200 ms")
    free, errors = found[at : at + 2]
    assert (free.wanted, free.is_met) == ("≤ 1,000 ms", False)
    assert (errors.told, errors.is_met) == ("2", False)


def test_the_plot_is_an_image_with_a_bar_for_each_system(results: Results) -> None:
    drawn = ElementTree.fromstring(image(results))  # noqa: S314 - our own
    texts = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"direct", "nginx", "llamactl", "6,000"} <= set(texts)
