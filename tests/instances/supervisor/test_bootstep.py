from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency import get_implementation
from celery.platforms import EX_FAILURE, EX_OK
from celery.worker import state
from django.conf import settings

from instances.states import Status
from instances.supervisor import running_supervisor
from instances.supervisor.bootstep import SupervisorStep
from keys.secrets import backend_key
from tests.instances.supervisor.conftest import NodeUnderTest, children, is_alive
from tests.instances.supervisor.controller.test_start import environment_of


def worker(pool: str, exitcode: int | None = EX_OK) -> Any:
    return SimpleNamespace(pool_cls=get_implementation(pool), exitcode=exitcode)


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_pool_of_anything_but_threads_is_refused(pool: str) -> None:
    with pytest.raises(SystemExit, match="--pool threads"):
        SupervisorStep(worker(pool))


@pytest.mark.parametrize("end", ["stop", "terminate"])
def test_the_supervisor_lives_with_the_worker(node: NodeUnderTest, end: str) -> None:
    step = SupervisorStep(worker("threads"))
    step.start(worker("threads"))
    node.supervisor = running_supervisor()
    try:
        instance = node.running()
        environ = environment_of(instance.pid or 0)
        launch = environ["LLAMACTL_LAUNCH"]
        assert instance.launch_id == launch
        assert environ["LLAMA_API_KEY"] == backend_key(instance.pk, launch, settings.SECRET_KEY)
    finally:
        getattr(step, end)(worker("threads"))
        node.supervisor = None
    assert running_supervisor() is None
    assert not children()
    assert node.see().status == Status.STOPPED


@pytest.mark.parametrize(("end", "exitcode"), [("stop", EX_FAILURE), ("terminate", None)])
def test_a_worker_that_ends_by_an_error_leaves_its_backends_to_the_next(
    node: NodeUnderTest, end: str, exitcode: int | None
) -> None:
    """Celery calls ``stop`` after an unexpected exception, ``terminate`` without descriptors."""
    step = SupervisorStep(worker("threads"))
    step.start(worker("threads"))
    node.supervisor = running_supervisor()
    pid = node.running().pid
    getattr(step, end)(worker("threads", exitcode))
    node.supervisor = None
    assert is_alive(pid or 0)
    assert node.see().status == Status.RUNNING
    node.start()
    node.ask_stop()
    node.reaches(Status.STOPPED)


@pytest.mark.parametrize("flag", ["should_stop", "should_terminate"])
def test_a_signal_stops_the_backends_whatever_the_exit_code(
    node: NodeUnderTest, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setattr(state, flag, EX_OK)
    step = SupervisorStep(worker("threads"))
    step.start(worker("threads"))
    node.supervisor = running_supervisor()
    node.running()
    step.stop(worker("threads", EX_FAILURE))
    node.supervisor = None
    assert not children()


def test_a_worker_that_ends_before_it_began_is_no_problem() -> None:
    SupervisorStep(worker("threads")).stop(worker("threads"))
