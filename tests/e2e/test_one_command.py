"""``make run`` as a whole: it ends in order, leaves nothing, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import Stack, kill_all

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "data")
    yield stack
    kill_all(stack.processes())


def test_ctrl_c_leaves_nothing_and_the_next_start_finds_its_instances(
    own: Stack, model: dict
) -> None:
    own.start()
    key = own.new_key()
    own.create("demo", model)
    assert own.chat("demo", key).status_code == 200
    management_key = own.management_key
    assert own.interrupt() == 0
    own.until_nothing_left()
    assert not list(own.data_dir.rglob("*.sock"))

    own.start()
    # It was running when it was stopped, so it runs again; keys are the same.
    assert own.management_key == management_key
    own.until_status("demo", "running")
    assert own.chat("demo", key).status_code == 200
    assert own.interrupt() == 0
    own.until_nothing_left()


def test_kill_of_the_parent_blocks_nothing(own: Stack, model: dict) -> None:
    own.start()
    key = own.new_key()
    own.create("demo", model)
    assert own.chat("demo", key).status_code == 200
    own.kill()
    own.start()
    assert own.chat("demo", key).status_code == 200
    assert len(own.backends("demo")) == 1
    assert own.interrupt() == 0
    own.until_nothing_left()
