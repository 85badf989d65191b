"""Services that hang are replaced, without cutting backends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import victims
from tests.faults.stack import FakeStack, running
from tests.faults.traffic import Traffic
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

REPLACED_SECONDS = 120
"""Three probes, 10 s apart, on a loaded machine."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[FakeStack]:
    directory = tmp_path_factory.mktemp("llamactl") / "data"
    with running(directory, program, LLAMACTL_WEB_PROCESSES="2") as stack:
        stack.run_fake("one")
        yield stack


def test_a_broker_a_worker_and_a_web_process_that_hang_are_replaced(stack: FakeStack) -> None:
    key = stack.new_key()
    backend = stack.one_backend("one").pid
    frozen = [victims.broker(stack), victims.worker(stack), victims.webs(stack)[0]]
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    ready = [victims.said(stack, f"{name} ready") for name in ("broker", "worker", "web 1")]

    def is_replaced() -> bool:
        said = [victims.said(stack, f"{name} ready") for name in ("broker", "worker", "web 1")]
        return said == [count + 1 for count in ready]

    until(is_replaced, lambda: stack.output.read_text()[-2000:], seconds=REPLACED_SECONDS)
    assert not any(process.is_running() for process in frozen)
    # The web process that did not hang, and the backend, are untouched.
    assert victims.said(stack, "web 2 ready") == 1
    assert stack.one_backend("one").pid == backend
    with Traffic(stack, key, ["one"]) as traffic:
        traffic.until_served()
    assert traffic.counts("after the hangs").is_flawless
    stack.stop_instance("one")
