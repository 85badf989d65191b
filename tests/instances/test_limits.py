"""Resource limits of an instance: accepted values, canonical form, refusals."""

from __future__ import annotations

import pytest

from instances.limits import ResourceLimits
from instances.options import InstanceOptions
from llamactl.config import current
from llamactl.core.errors import LlamactlError


def parse(document: object) -> ResourceLimits:
    return InstanceOptions.parse({"limits": document}, current()).limits


def test_limits_round_trip_unchanged() -> None:
    document = {
        "nice": 10,
        "cpus": "0-3,8",
        "open_files": 4096,
        "memory_mb": 8000,
        "core_dumps": False,
        "oom_score_adj": 500,
    }
    limits = parse(document)
    assert limits.to_document() == document
    assert limits.cpu_set == {0, 1, 2, 3, 8}


@pytest.mark.parametrize("nothing", [None, {}, {"cpus": ""}, {"cpus": [], "nice": None}])
def test_missing_limits_set_nothing(nothing: object) -> None:
    assert parse(nothing) == ResourceLimits()
    assert parse(nothing).to_document() == {}


@pytest.mark.parametrize(
    ("cpus", "text"), [([3, 1, 2, 9], "1-3,9"), ("2, 0,1", "0-2"), ("7", "7"), ("0-0", "0")]
)
def test_cpus_have_one_canonical_form(cpus: object, text: str) -> None:
    assert parse({"cpus": cpus}).cpus == text


@pytest.mark.parametrize(
    "bad",
    [
        [],
        "nice",
        {"nice": -1},
        {"nice": 20},
        {"nice": True},
        {"nice": "5"},
        {"nice": 10**30},
        {"cpus": "3-1"},
        {"cpus": "0-99999"},
        {"cpus": "4096"},
        {"cpus": "-1"},
        {"cpus": "0x1"},
        {"cpus": "\u0663"},
        {"cpus": ",".join(["0"] * 10_000)},
        {"cpus": {"0": 1}},
        {"cpus": [True]},
        {"cpus": [-1]},
        {"open_files": 3},
        {"memory_mb": 1},
        {"memory_mb": 1.5},
        {"core_dumps": 1},
        {"oom_score_adj": -1000},
        {"oom_score_adj": 1001},
        {"address_space": 1},
        {"nice\n": 1},
    ],
)
def test_bad_limits_are_refused_with_the_rule(bad: object) -> None:
    with pytest.raises(LlamactlError, match="limits") as caught:
        parse(bad)
    assert caught.value.status == 400
    assert len(caught.value.details) < 300
