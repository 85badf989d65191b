"""Grants, preemptions and the queue of a node, with real processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from instances import lifecycle
from instances.errors import NoCapacity, NoCapacityForActivation
from instances.models import Instance, StatusChange
from instances.scheduling.traffic_report import WebReport
from instances.states import ABANDONED, EVICTED, ON_DEMAND, DesiredState, Status
from instances.supervisor import Supervisor
from instances.supervisor.scheduling import traffic_monitor
from llamactl.config import AppConfig
from tests.instances.supervisor.conftest import NodeUnderTest, children, is_alive
from tests.support.until import until

SEEN_ALL = 10**9
"""A revision after all changes."""
FRESH = 0.1
"""Seconds for which a report is fresh, where every report comes later."""

Configure = Callable[..., AppConfig]


class Web:
    """The report of one web process."""

    def __init__(self) -> None:
        self.revision = SEEN_ALL
        self.in_flight: dict[str, int] = {}
        self.looking: dict[str, int] = {}
        self.last_used: dict[str, float] = {}
        self.waiting: dict[str, dict[str, tuple[int, float]]] = {}
        self.not_evicting: list[str] = []

    def waits(self, name: str, *keys: str) -> None:
        """Requests that began to wait just now, and ask for the start."""
        self.waiting[name] = {key: (1, time.time()) for key in keys or ("k",)}
        lifecycle.request_start(name, cause=ON_DEMAND)

    def report(self) -> WebReport:
        return WebReport(
            "web",
            self.revision,
            self.in_flight,
            self.last_used,
            self.looking,
            self.waiting,
            self.not_evicting,
        )


@pytest.fixture
def web(node: NodeUnderTest, monkeypatch: pytest.MonkeyPatch) -> Web:
    web = Web()
    for module in ("controller.drain", "scheduling.traffic_monitor"):
        monkeypatch.setattr(
            f"instances.supervisor.{module}.read_reports", lambda client: [web.report()]
        )
    return web


@pytest.fixture
def one(node: NodeUnderTest, web: Web, fake_backend: Configure) -> NodeUnderTest:
    """A node with a running supervisor, and a limit of one running instance."""
    fake_backend(max_running_instances=1)
    node.start()
    return node


def made(node: NodeUnderTest, *names: str, **options: Any) -> None:
    for name in names:
        node.create(name, **{"idle_timeout": 60, **options})


def last_change(name: str, status: Status) -> StatusChange:
    return StatusChange.objects.filter(instance__name=name, new=status).latest("id")


def loads() -> list[str]:
    rows = StatusChange.objects.filter(new=Status.STARTING).order_by("id")
    return [row.instance.name for row in rows.select_related("instance")]


def queue_of(node: NodeUnderTest, name: str) -> Any:
    return until(lambda: node.see(name).queue, f"no queue for {name}")


def test_the_history_of_a_preempted_idle_instance_names_its_successor(one: NodeUnderTest) -> None:
    made(one, "a", "b")
    one.ask_start("a")
    one.reaches(Status.RUNNING, "a")
    one.ask_start("b")
    one.reaches(Status.RUNNING, "b")
    gone = one.see("a")
    assert (gone.status, gone.desired_state) == (Status.STOPPED, DesiredState.STOPPED)
    assert gone.requested_by == EVICTED
    change = last_change("a", Status.SHUTTING_DOWN)
    assert (change.cause, change.reason) == ("supervisor:evicted", "preempted for b")
    assert last_change("b", Status.STARTING).reason == "requested by test"
    # It should have been gone before the other had a process.
    assert last_change("a", Status.STOPPED).at <= last_change("b", Status.STARTING).at
    assert len(children()) == 1


def test_three_starts_at_once_never_run_together(one: NodeUnderTest) -> None:
    made(one, "a", "b", "c")
    most = 0
    for name in "abc":
        one.ask_start(name)
    changes, deadline = 0, time.monotonic() + 30
    while len(set(loads())) < 3 or one.see(loads()[-1]).status != Status.RUNNING:
        # Looked at a second time: they are not all listed in the same moment.
        most = max(most, sum(is_alive(pid) for pid in children()))
        assert time.monotonic() < deadline, [one.history(name) for name in "abc"]
        if (now := StatusChange.objects.count()) > changes:
            # A bound for each step: for all together it would time the machine.
            changes, deadline = now, time.monotonic() + 30
        time.sleep(0.005)
    assert most == 1
    assert len(loads()) == 3


def test_a_busy_instance_is_waited_for_and_the_queue_is_visible(
    one: NodeUnderTest, web: Web
) -> None:
    made(one, "a", "b", "c")
    one.ask_start("a")
    one.reaches(Status.RUNNING, "a")
    web.in_flight = {"a": 2}
    web.waits("b")
    assert queue_of(one, "b") == {
        "place": 1,
        "length": 1,
        "reason": "max_running_instances (1) is reached; waiting for a (2 requests in flight)",
    }
    web.waits("c")
    until(lambda: (one.see("c").queue or {}).get("place") == 2)
    assert one.see("b").reported_status is Status.STARTING
    assert one.history("a")[-1] == "running"
    web.in_flight = {}
    one.reaches(Status.RUNNING, "b")
    assert one.see("b").queue is None


def test_a_busy_instance_is_preempted_once_another_has_waited_for_long(
    node: NodeUnderTest, web: Web, fake_backend: Configure
) -> None:
    fake_backend(max_running_instances=1, swap_after=0.5, drain_timeout=0.2)
    node.start()
    made(node, "a", "b")
    node.ask_start("a")
    node.reaches(Status.RUNNING, "a")
    web.in_flight = {"a": 1}
    web.waits("b")
    node.reaches(Status.SHUTTING_DOWN, "a")
    # It should not be cut, however long that takes: only llamactl itself wants it to end.
    time.sleep(0.6)
    assert node.see("a").status == Status.SHUTTING_DOWN
    assert len(children()) == 1
    web.in_flight = {}
    node.reaches(Status.RUNNING, "b")


def test_a_preempted_instance_queues_behind_its_successor(
    node: NodeUnderTest, web: Web, fake_backend: Configure
) -> None:
    fake_backend(max_running_instances=1, swap_after=0.3)
    node.start()
    made(node, "a", "b")
    node.ask_start("a")
    node.reaches(Status.RUNNING, "a")
    web.in_flight = {"a": 1}
    web.waits("b", "few")
    until(lambda: node.see("a").status == Status.SHUTTING_DOWN)
    web.waits("a", "many")
    time.sleep(0.3)
    web.in_flight = {}
    node.reaches(Status.RUNNING, "b")
    web.waiting.pop("b")
    # Then it has its turn again: b has nothing to do.
    node.reaches(Status.RUNNING, "a")
    assert loads() == ["a", "b", "a"]


def test_an_operators_stop_bounds_the_drain_of_a_preemption(
    node: NodeUnderTest, web: Web, fake_backend: Configure
) -> None:
    fake_backend(max_running_instances=1, swap_after=0.2, drain_timeout=0.3)
    node.start()
    made(node, "a", "b")
    node.ask_start("a")
    node.reaches(Status.RUNNING, "a")
    web.in_flight = {"a": 1}
    web.waits("b")
    node.reaches(Status.SHUTTING_DOWN, "a")
    time.sleep(0.5)
    assert node.see("a").status == Status.SHUTTING_DOWN
    node.ask_stop("a")
    node.reaches(Status.STOPPED, "a")
    assert node.see("a").requested_by == "test"


def test_a_loaded_instance_serves_its_waiting_requests_first(
    node: NodeUnderTest, web: Web, fake_backend: Configure
) -> None:
    fake_backend(max_running_instances=1, swap_after=0)
    web.revision = 0  # it will not have seen that a is ready
    node.start()
    made(node, "a", "b")
    web.waits("a")
    node.reaches(Status.RUNNING, "a")
    web.waits("b")
    time.sleep(0.5)
    assert node.see("a").status == Status.RUNNING
    web.revision = SEEN_ALL
    del web.waiting["a"]
    node.reaches(Status.RUNNING, "b")


def test_without_a_report_no_instance_is_preempted(
    one: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(client: object) -> list[WebReport]:
        raise ConnectionError("no broker")

    made(one, "a", "b")
    one.ask_start("a")
    one.reaches(Status.RUNNING, "a")
    monkeypatch.setattr(traffic_monitor, "read_reports", refuse)
    time.sleep(0.2)
    one.ask_start("b")
    queue_of(one, "b")
    time.sleep(0.5)
    assert one.history("a")[-1] == "running"


def slow(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """From now on this takes longer than a report counts as fresh, as on a starved machine."""
    call = getattr(owner, name)

    def late(*arguments: Any) -> Any:
        time.sleep(3 * FRESH)
        return call(*arguments)

    monkeypatch.setattr(traffic_monitor, "FRESH_SECONDS", FRESH)
    monkeypatch.setattr(owner, name, late)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(traffic_monitor, "read_reports"), (Supervisor, "_step_all")],
    ids=["read", "turn"],
)
def test_reports_that_are_never_fresh_decide_on_a_preemption(
    one: NodeUnderTest, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    made(one, "a", "b")
    one.ask_start("a")
    one.reaches(Status.RUNNING, "a")
    slow(monkeypatch, owner, name)
    one.ask_start("b")
    one.reaches(Status.RUNNING, "b", seconds=20)
    assert one.see("a").requested_by == EVICTED


def test_reports_that_are_never_fresh_keep_a_busy_instance(
    one: NodeUnderTest, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(one, "a", "b")
    one.ask_start("a")
    one.reaches(Status.RUNNING, "a")
    web.in_flight = {"a": 1}
    slow(monkeypatch, traffic_monitor, "read_reports")
    one.ask_start("b")
    queue_of(one, "b")
    time.sleep(10 * FRESH)
    assert one.history("a")[-1] == "running"
    web.in_flight = {}
    one.reaches(Status.RUNNING, "b", seconds=20)


def test_disconnected_requests_cause_no_swap(one: NodeUnderTest, web: Web) -> None:
    made(one, "a", "b")
    one.ask_start("a")
    pid = one.reaches(Status.RUNNING, "a").pid
    web.in_flight = {"a": 1}
    web.waits("b")
    queue_of(one, "b")
    web.waiting.clear()
    until(lambda: one.see("b").desired_state == DesiredState.STOPPED)
    web.in_flight = {}
    until(lambda: one.see("b").queue is None)
    assert one.see("b").requested_by == ABANDONED
    assert one.history("b") == []
    assert one.see("a").pid == pid


def test_a_start_by_hand_survives_the_disconnect_of_the_requests(
    one: NodeUnderTest, web: Web
) -> None:
    made(one, "a", "b")
    one.ask_start("a")
    one.reaches(Status.RUNNING, "a")
    web.in_flight = {"a": 1}
    web.waits("b")
    one.ask_start("b")
    web.waiting.clear()
    time.sleep(0.5)
    assert one.see("b").desired_state == DesiredState.RUNNING
    web.in_flight = {}
    one.reaches(Status.RUNNING, "b")


def test_a_newer_request_wins_over_a_preemption(
    one: NodeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instances.supervisor.state import rows

    made(one, "a", "b")
    one.ask_start("a")
    one.reaches(Status.RUNNING, "a")
    request_stop = rows.request_stop

    def restarted_meanwhile(row: Any, cause: str) -> bool:
        monkeypatch.setattr(rows, "request_stop", request_stop)
        lifecycle.request_restart("a", cause="admin:bob")
        return request_stop(row, cause)

    monkeypatch.setattr(rows, "request_stop", restarted_meanwhile)
    one.ask_start("b")
    # The restart comes first, then the next preemption.
    one.reaches(Status.RUNNING, "b", seconds=10)
    assert loads() == ["a", "a", "b"]
    assert last_change("a", Status.STARTING).reason == "requested by admin:bob"


def test_a_restart_keeps_its_allocation(one: NodeUnderTest, web: Web) -> None:
    made(one, "a", "b")
    one.ask_start("a")
    one.reaches(Status.RUNNING, "a")
    web.in_flight = {"a": 1}
    web.waits("b")
    queue_of(one, "b")
    one.ask_restart("a")
    time.sleep(0.2)
    web.in_flight = {}
    one.reaches(Status.RUNNING, "b")
    assert loads() == ["a", "a", "b"]


def test_a_crashed_instance_keeps_its_allocation_until_its_restart(
    one: NodeUnderTest, web: Web
) -> None:
    made(one, "a", restart_delay=5)
    made(one, "b")
    one.ask_start("a")
    os.kill(one.reaches(Status.RUNNING, "a").pid or 0, 9)
    one.reaches(Status.RESTARTING, "a")
    web.waits("b")
    assert "a (loading)" in queue_of(one, "b")["reason"]
    one.reaches(Status.RUNNING, "b")
    assert loads() == ["a", "a", "b"]


def test_a_failed_start_releases_its_allocation(one: NodeUnderTest) -> None:
    made(one, "a", FAKE_NEVER_HEALTHY="1", FAKE_EXIT_CODE="1", FAKE_CRASH_AFTER="0.2")
    made(one, "b")
    one.ask_start("a")
    one.ask_start("b")
    one.reaches(Status.FAILED, "a")
    one.reaches(Status.RUNNING, "b")


def test_a_group_limit_preempts_within_the_group_alone(
    node: NodeUnderTest, web: Web, fake_backend: Configure
) -> None:
    fake_backend(group_limits={"big": 1})
    node.start()
    made(node, "big-1", "big-2", group="big")
    made(node, "small")
    for name in ("small", "big-1"):
        node.ask_start(name)
        node.reaches(Status.RUNNING, name)
    node.ask_start("big-2")
    node.reaches(Status.RUNNING, "big-2")
    assert node.see("small").status == Status.RUNNING
    assert node.see("big-1").status == Status.STOPPED


def test_a_lowered_limit_ends_no_running_instance(
    node: NodeUnderTest, web: Web, fake_backend: Configure
) -> None:
    fake_backend(keep_backends=True)
    node.start()
    for name in "abc":
        node.running(name, idle_timeout=60)
    node.stop()
    fake_backend(max_running_instances=2)
    node.start()
    node.create("d", idle_timeout=60)
    time.sleep(0.5)
    assert len(children()) == 3
    node.ask_start("d")
    node.reaches(Status.RUNNING, "d")
    assert len(children()) == 2


# -- starts that can never be granted ----------------------------------------------------------


def test_an_instance_without_an_idle_timeout_makes_room_for_another(
    one: NodeUnderTest, web: Web
) -> None:
    made(one, "a", "b", idle_timeout=0)
    one.ask_start("a")
    one.reaches(Status.RUNNING, "a")
    one.ask_start("b")
    one.reaches(Status.RUNNING, "b")
    assert one.see("a").requested_by == EVICTED


def test_a_start_by_hand_is_refused_where_all_others_are_pinned(one: NodeUnderTest) -> None:
    one.create("a", pinned=True)
    made(one, "b")
    one.ask_start("a")
    one.reaches(Status.RUNNING, "a")
    for ask in (one.ask_start, one.ask_restart):
        with pytest.raises(NoCapacity) as refused:
            ask("b")
        assert (refused.value.code, refused.value.status) == ("max_instances_reached", 409)
        assert "waiting for a (pinned: never preempted)" in refused.value.details
    assert one.see("b").desired_state == DesiredState.STOPPED


def test_a_request_is_refused_at_once_where_no_start_can_be_granted(one: NodeUnderTest) -> None:
    one.create("a", pinned=True)
    made(one, "b")
    one.ask_start("a")
    with pytest.raises(NoCapacityForActivation) as refused:
        lifecycle.request_start("b", cause=ON_DEMAND)
    assert (refused.value.status, refused.value.retry_after) == (503, None)
    one.reaches(Status.RUNNING, "a")


def test_without_preemption_the_limit_holds_and_starts_within_it_are_granted(
    node: NodeUnderTest, web: Web, fake_backend: Configure
) -> None:
    fake_backend(max_running_instances=1, enable_lru_eviction=False)
    node.start()
    made(node, "a", "b")
    web.waits("a")
    node.reaches(Status.RUNNING, "a")
    web.waiting.clear()
    with pytest.raises(NoCapacity):
        node.ask_start("b")
    with pytest.raises(NoCapacityForActivation) as refused:
        lifecycle.request_start("b", cause=ON_DEMAND)
    # The idle stop of a would change that.
    assert refused.value.retry_after == 60
    node.ask_stop("a")
    node.ask_start("b")
    node.reaches(Status.RUNNING, "b")


def test_requests_without_the_right_evict_nothing_until_one_has_it(
    one: NodeUnderTest, web: Web
) -> None:
    made(one, "a", "b")
    web.waits("a")
    one.reaches(Status.RUNNING, "a")
    web.waiting.clear()
    with pytest.raises(NoCapacityForActivation, match=r"\(can_evict\)") as refused:
        lifecycle.request_start("b", cause=ON_DEMAND, may_evict=False)
    # The idle stop of a would change that.
    assert refused.value.retry_after == 60
    web.not_evicting = ["b"]
    web.waits("b")
    assert "max_running_instances (1) is reached" in queue_of(one, "b")["reason"]
    assert one.see("a").status == Status.RUNNING
    web.not_evicting = []
    one.reaches(Status.RUNNING, "b")


# -- after a restart of the host ------------------------------------------------------------------


def desired_before_boot(node: NodeUnderTest, **last_used_minutes_ago: int) -> None:
    """Rows as a host that lost power leaves them; the first to load takes its time."""
    first = min(last_used_minutes_ago.values())
    for name, minutes in last_used_minutes_ago.items():
        seconds = "4" if minutes == first else "0.5"
        node.create(name, idle_timeout=60, FAKE_START_SECONDS=seconds)
        Instance.objects.filter(name=name).update(
            desired_state=DesiredState.RUNNING,
            status=Status.RUNNING,
            generation=1,
            observed_generation=1,
            pid=2**22 - 1,
            pid_started_ticks=1,
            last_used_at=timezone.now() - timedelta(minutes=minutes),
        )


def test_after_a_boot_instances_load_one_at_a_time_the_last_used_first(
    node: NodeUnderTest, web: Web
) -> None:
    desired_before_boot(node, old=50, new=1, middle=20)
    node.start()
    until(lambda: (node.see("old").queue or {}).get("place") == 2)
    for name in ("new", "middle", "old"):
        node.reaches(Status.RUNNING, name)
    assert loads() == ["new", "middle", "old"]
    starts = [last_change(name, Status.STARTING).at for name in ("middle", "old")]
    readies = [last_change(name, Status.RUNNING).at for name in ("new", "middle")]
    assert all(ready <= start for ready, start in zip(readies, starts, strict=True))


def test_after_a_boot_the_limit_holds_and_the_others_wait(
    node: NodeUnderTest, web: Web, fake_backend: Configure
) -> None:
    fake_backend(max_running_instances=1)
    desired_before_boot(node, old=50, new=1)
    node.start()
    assert queue_of(node, "old")["place"] == 1
    node.reaches(Status.RUNNING, "new")
    time.sleep(0.8)
    assert node.see("new").status == Status.RUNNING
    # A request for it is another matter.
    web.waits("old")
    node.reaches(Status.RUNNING, "old")
    assert node.see("new").requested_by == EVICTED


def test_several_may_load_at_once_after_a_boot(
    node: NodeUnderTest, web: Web, fake_backend: Configure
) -> None:
    fake_backend(loads_at_boot=3)
    desired_before_boot(node, a=3, b=2, c=1)
    node.start()
    until(lambda: len(children()) == 3)
    for name in "abc":
        node.reaches(Status.RUNNING, name)
    assert last_change("a", Status.STARTING).at <= last_change("c", Status.RUNNING).at


# -- the worker ends meanwhile --------------------------------------------------------------------


def test_the_next_worker_continues_the_drain_of_a_preemption(
    node: NodeUnderTest, web: Web, fake_backend: Configure
) -> None:
    limits = {"max_running_instances": 1, "swap_after": 0.2, "drain_timeout": 0.2}
    fake_backend(keep_backends=True, **limits)
    node.start()
    made(node, "a", "b")
    node.ask_start("a")
    pid = node.reaches(Status.RUNNING, "a").pid or 0
    web.in_flight = {"a": 1}
    web.waits("b")
    node.reaches(Status.SHUTTING_DOWN, "a")
    node.stop()
    assert is_alive(pid)
    fake_backend(**limits)
    node.start()
    time.sleep(0.6)
    assert is_alive(pid)
    web.in_flight = {}
    node.reaches(Status.STOPPED, "a")
    node.reaches(Status.RUNNING, "b")


def test_the_end_of_the_worker_bounds_the_drain_of_a_preemption(
    node: NodeUnderTest, web: Web, fake_backend: Configure
) -> None:
    fake_backend(max_running_instances=1, swap_after=0.2, drain_timeout=0.3)
    node.start()
    made(node, "a", "b")
    node.ask_start("a")
    node.reaches(Status.RUNNING, "a")
    web.in_flight = {"a": 1}
    web.waits("b")
    node.reaches(Status.SHUTTING_DOWN, "a")
    node.stop()
    assert not children()
