"""The loads, and which systems get them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import command_line, matrix
from bench.systems import System

SYSTEM = System("direct", "http://127.0.0.1:1", ("key",), "bench")


def test_a_held_stream_lasts_until_after_the_window() -> None:
    plan = matrix.streams_of(5000, tps=2).plan(SYSTEM, seconds=8, warm_up_seconds=1)
    assert plan.mode == "held"
    assert plan.ramp_seconds == 10
    assert plan.tokens / plan.tps > plan.ramp_seconds + plan.warm_up_seconds + plan.seconds


def test_few_streams_end_and_begin_again() -> None:
    plan = matrix.streams_of(200).plan(SYSTEM, seconds=3, warm_up_seconds=1)
    assert (plan.mode, plan.tokens, plan.probes) == ("streams", 200, 0)


def test_a_probe_asks_for_no_stream() -> None:
    plan = matrix.streams_of(5000, tps=2).plan(SYSTEM, seconds=8, warm_up_seconds=1)
    assert b'"stream"' in plan.request_bytes(0)
    assert b'"stream"' not in plan.probe_bytes()


def test_those_who_leave_are_held_streams_of_a_backend_that_can_be_asked() -> None:
    scenario = matrix.disconnects_of(1000)
    system = replace(SYSTEM, backend_url="http://127.0.0.1:2")
    plan = scenario.plan(system, seconds=3, warm_up_seconds=1)
    assert (plan.mode, plan.tps, plan.probes) == ("held", 10, 0)
    assert plan.backend_url == "http://127.0.0.1:2"
    with pytest.raises(ValueError, match="its backend listens"):
        scenario.plan(SYSTEM, seconds=3, warm_up_seconds=1)


def test_held_streams_need_no_backend_that_can_be_asked() -> None:
    assert matrix.streams_of(1000).plan(SYSTEM, seconds=3, warm_up_seconds=1).backend_url == ""


def test_those_who_leave_are_in_the_whole_matrix_and_can_be_measured_alone() -> None:
    [first, _second] = matrix.whole_matrix([], {})
    assert matrix.disconnects_of(1000) in first.scenarios
    [stage] = command_line.parse(["--disconnects", "1000"]).stages
    assert stage.scenarios == (matrix.disconnects_of(1000),)


def test_those_who_leave_a_backend_that_nobody_knows_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        command_line.parse(
            ["--disconnects", "9", "--base-url", "http://127.0.0.1:1", "--model", "bench"]
        )
    assert "--disconnects" in capsys.readouterr().err


def test_a_body_has_the_size_that_was_asked_for() -> None:
    plan = matrix.requests_of(1, body_bytes=100_000).plan(SYSTEM, seconds=1, warm_up_seconds=0)
    assert len(plan.request_bytes(0).split(b"\r\n\r\n", 1)[1]) == 100_000


def test_each_open_loop_follows_its_closed_loop() -> None:
    [first, _second] = matrix.whole_matrix([], {})
    subjects = [(each.subject, each.clients) for each in first.scenarios]
    assert subjects.index(("requests", 64)) < subjects.index(("open loop", 64))


def test_a_peer_that_is_not_installed_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "nginx_program", lambda: None)
    with pytest.raises(SystemExit) as ended:
        command_line.parse(["--with", "nginx"])
    assert ended.value.code == 2
    assert "apt install nginx" in capsys.readouterr().err


def test_the_whole_matrix_says_which_peers_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command_line, "nginx_program", lambda: None)
    monkeypatch.setattr(command_line, "litellm_program", lambda venv: None)
    options = command_line.parse(["--full"])
    assert [line.split(":")[0] for line in options.left_out] == ["nginx", "litellm"]
    assert {spec.kind for stage in options.stages for spec in stage.systems} == {"llamactl"}
