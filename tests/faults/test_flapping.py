"""Many operators who start, stop and change the same instances at once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from instances.supervisor.process.markers import INSTANCE_MARKER
from tests.faults import victims
from tests.faults.stack import FakeStack, running
from tests.faults.traffic import Traffic

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

SECONDS = 5
"""For each of the two last desired states."""
OPERATORS = 8
LOOK_SECONDS = 0.05


class Operator(threading.Thread):
    """An operator that does random things with two instances, one of which comes and goes."""

    def __init__(self, stack: FakeStack, program: Path, number: int) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._chance = random.Random(number)
        self._document = {
            "backend_type": "llama_cpp",
            "backend_options": {"model": "fake"},
            "command_override": str(program),
        }
        self.statuses: Counter[str] = Counter()

    def run(self) -> None:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            name = self._chance.choice(["flapping", "flapping", "passing"])
            action = self._chance.choice(["start", "stop", "restart", "update", "delete", "create"])
            if name == "flapping" and action == "delete":
                continue
            path = f"/api/v1/instances/{name}"
            if action == "update":
                response = self._stack.call("PUT", path, self._document)
            elif action == "delete":
                response = self._stack.call("DELETE", path)
            elif action == "create":
                response = self._stack.call("POST", path, self._document)
            else:
                response = self._stack.call("POST", f"{path}/{action}")
            self.statuses[f"{action} {response.status_code}"] += 1


class Witness(threading.Thread):
    """Looks all the while for an instance that runs twice.

    An instance that was deleted and one that was made anew with its name are two: the process of
    the first may still be ending when the second starts.
    """

    def __init__(self, worker: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.is_over = threading.Event()
        self.seen: set[str] = set()
        self.seen_twice: list[list[dict[str, object]]] = []
        self._worker = worker

    def run(self) -> None:
        while not self.is_over.wait(LOOK_SECONDS):
            running: dict[str, list[dict[str, object]]] = {}
            for child in self._worker.children():
                try:
                    found = child.as_dict(["pid", "status", "create_time", "cmdline", "environ"])
                except psutil.Error:
                    continue
                instance = (found.pop("environ") or {}).get(INSTANCE_MARKER)
                if instance and found["status"] != psutil.STATUS_ZOMBIE:
                    running.setdefault(instance, []).append(found)
            self.seen |= running.keys()
            self.seen_twice += [processes for processes in running.values() if len(processes) > 1]


def test_the_last_desired_state_is_reached_and_other_instances_are_undisturbed(
    tmp_path: Path, program: Path
) -> None:
    with running(tmp_path / "data", program) as stack:
        stack.run_fake("steady")
        stack.create_fake("flapping")
        key = stack.new_key()
        witness = Witness(victims.worker(stack))
        witness.start()
        with Traffic(stack, key, ["steady"], is_managed=False) as traffic:
            flap(stack, program, "start")
            stack.until_status("flapping", "running", 30)
            stack.one_backend("flapping")
            assert stack.chat("flapping", key).status_code == 200
            flap(stack, program, "stop")
            stack.until_status("flapping", "stopped", 30)
            assert stack.backends("flapping") == []
            traffic.until_served()
        assert traffic.counts("flapping").is_flawless
        witness.is_over.set()
        witness.join()
        assert {name.partition(":")[2] for name in witness.seen} >= {"steady", "flapping"}
        assert witness.seen_twice == []


def flap(stack: FakeStack, program: Path, last_action: str) -> None:
    operators = [Operator(stack, program, number) for number in range(OPERATORS)]
    for operator in operators:
        operator.start()
    for operator in operators:
        operator.join()
    for name in ("flapping", "passing"):
        stack.call("POST", f"/api/v1/instances/{name}/{last_action}")
    statuses = sum((operator.statuses for operator in operators), Counter())
    print(dict(statuses))
    assert not [each for each in statuses if each.split()[1].startswith("5")]
