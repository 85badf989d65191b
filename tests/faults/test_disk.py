"""The disk is full: the log can't be written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.stack import FakeStack, running
from tests.faults.traffic import Traffic

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[FakeStack]:
    with running(tmp_path_factory.mktemp("llamactl") / "data", program) as stack:
        stack.run_fake("one")
        yield stack


def fill_disk_of_log(stack: FakeStack, name: str) -> None:
    """Each write fails with ENOSPC. (A small file system of our own would need root.)"""
    path = stack.data_dir / "logs" / f"{name}.log"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/full")


def test_an_instance_whose_log_is_full_starts_answers_crashes_and_stops(stack: FakeStack) -> None:
    key = stack.new_key()
    fill_disk_of_log(stack, "full")
    stack.create_fake("full")
    with Traffic(stack, key, ["one"]) as traffic:
        stack.start_instance("full")
        assert stack.chat("full", key).status_code == 200
        stack.one_backend("full").kill()
        assert stack.chat("full", key).status_code in (200, 502)
        stack.until_status("full", "running")
        stack.one_backend("full")
        stack.stop_instance("full")
        traffic.until_served()
    assert traffic.counts("a full log").is_flawless
    assert stack.crashes("full") == 1


def test_a_backend_that_fails_on_a_full_disk_says_how_it_ended(stack: FakeStack) -> None:
    key = stack.new_key()
    fill_disk_of_log(stack, "failing")
    stack.create_fake("failing", "fake?exit_code=28")
    assert stack.chat("failing", key).status_code == 502
    failure = stack.until_status("failing", "failed")["failure"]
    assert "28" in failure["details"]
    assert stack.chat("one", key).status_code == 200
