"""The markers of a launch in the environments of its processes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from instances.supervisor.process.markers import Marker, marked_processes

MARKER = Marker("/nowhere/node-test.lock", "1:one", "fe89f20cd40d41e6bb96106cbed5dbd3")


@pytest.fixture
def marked() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"], env=MARKER.to_environment()) as process:
        yield process
        process.kill()


def test_a_process_is_found_that_loads_its_program_during_the_scan(
    marked: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel sets the new environment after the new memory: until then the file is empty."""
    file = f"/proc/{marked.pid}/environ"
    read_bytes = Path.read_bytes
    looks = 0

    def empty_at_first(path: Path) -> bytes:
        nonlocal looks
        if str(path) != file:
            return read_bytes(path)
        looks += 1
        return b"" if looks == 1 else read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", empty_at_first)
    found = [each for each in marked_processes() if each.marker == MARKER]
    assert [each.pid for each in found] == [marked.pid]
    assert looks == 2
