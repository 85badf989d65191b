from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from llamactl.core.parent_heartbeat import VARIABLE, ParentHeartbeat


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    monkeypatch.setenv(VARIABLE, str(writer))
    yield reader, writer
    for descriptor in (reader, writer):
        os.close(descriptor)


def test_a_beat_arrives_and_a_full_pipe_does_not_block(pipe: tuple[int, int]) -> None:
    reader, _ = pipe
    heartbeat = ParentHeartbeat.of_environment()
    heartbeat.beat()
    assert os.read(reader, 10) == b"\0"
    for _ in range(70_000):  # a pipe holds 64 KiB
        heartbeat.beat()


def test_no_child_inherits_the_descriptor(pipe: tuple[int, int]) -> None:
    ParentHeartbeat.of_environment()
    assert VARIABLE not in os.environ
    assert not os.get_inheritable(pipe[1])


@pytest.mark.parametrize("text", [None, "", "x", "-1", "999999"])
def test_without_a_parent_that_listens_a_beat_does_nothing(
    monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    if text is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, text)
    ParentHeartbeat.of_environment().beat()


def test_a_killed_parent_is_no_error(pipe: tuple[int, int]) -> None:
    heartbeat = ParentHeartbeat.of_environment()
    other = os.open(os.devnull, os.O_RDONLY)
    os.dup2(other, pipe[0])
    os.close(other)
    heartbeat.beat()
