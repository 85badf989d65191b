"""``manage.py drain`` against a real supervisor."""

from __future__ import annotations

import os
import signal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from instances.states import Status
from nodes.errors import NodeDrained
from tests.instances.supervisor.conftest import NodeUnderTest, children
from tests.support.until import until


def test_drain_waits_until_all_is_stopped_and_resume_starts_it_again(
    supervised: NodeUnderTest,
) -> None:
    supervised.running("one")
    supervised.running("two", FAKE_IGNORE_SIGINT="1")
    said = StringIO()
    call_command("drain", stdout=said)
    assert not children()
    assert "waiting for one, two" in said.getvalue()
    assert "main is drained" in said.getvalue()
    with pytest.raises(NodeDrained):
        supervised.ask_start("one")
    call_command("drain", "--resume", stdout=said)
    supervised.reaches(Status.RUNNING, "one")
    supervised.reaches(Status.RUNNING, "two")
    assert "requested to start: one, two" in said.getvalue()


def test_drain_also_ends_a_start_and_a_restart_that_are_under_way(
    supervised: NodeUnderTest,
) -> None:
    supervised.create("slow", FAKE_NEVER_HEALTHY="1")
    supervised.ask_start("slow")
    until(lambda: supervised.see("slow").pid)
    crashing = supervised.running("crashing", restart_delay=600)
    os.kill(crashing.pid or 0, signal.SIGKILL)
    supervised.reaches(Status.RESTARTING, "crashing")
    call_command("drain", stdout=StringIO())
    assert not children()
    assert supervised.see("crashing").status == Status.STOPPED


def test_drain_that_is_not_over_in_time_lists_the_running_instances(
    node: NodeUnderTest,
) -> None:
    node.start()
    node.running("one")
    node.stop()
    # No worker is there that could stop it.
    from instances.models import Instance

    Instance.objects.update(status=Status.RUNNING)
    Instance.objects.update(pid=2**22)
    with pytest.raises(CommandError, match="not stopped within 0 s: one"):
        call_command("drain", "--wait", "0", stdout=StringIO(), stderr=StringIO())


def test_drain_of_an_unknown_node_is_refused(node: NodeUnderTest) -> None:
    with pytest.raises(CommandError, match="'nowhere' not found"):
        call_command("drain", "--node", "nowhere")
