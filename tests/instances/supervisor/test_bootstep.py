from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency import get_implementation
from django.conf import settings

from instances.states import Status
from instances.supervisor import running_supervisor
from instances.supervisor.bootstep import SupervisorStep
from keys.secrets import backend_key
from tests.instances.supervisor.conftest import NodeUnderTest, children
from tests.instances.supervisor.controller.test_start import environment_of


def worker(pool: str) -> Any:
    return SimpleNamespace(pool_cls=get_implementation(pool))


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
        assert environ["LLAMA_API_KEY"] == backend_key(instance.pk, settings.SECRET_KEY)
    finally:
        getattr(step, end)(worker("threads"))
        node.supervisor = None
    assert running_supervisor() is None
    assert not children()
    assert node.see().status == Status.STOPPED


def test_a_worker_that_ends_before_it_began_is_no_problem() -> None:
    SupervisorStep(worker("threads")).stop(worker("threads"))
