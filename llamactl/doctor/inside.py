"""What do database, broker, worker and backends say? Only to be asked once Django is set up."""

from __future__ import annotations

import time
from collections.abc import Iterator

import django.db
from django.db import connections
from django.utils import timezone

from instances.models import Instance
from instances.program_info import program_output
from llamactl.config import AppConfig
from llamactl.doctor import backends, broker, database, host, ports, processes, services, storage
from llamactl.doctor.findings import Diagnosis, guarded
from nodes.models import Node


class Examination:
    """Looks once at each thing; what one check has learnt, the later ones use."""

    def __init__(self, config: AppConfig) -> None:
        self._config = config
        self._instances: list[Instance] = []
        self._nodes: list[Node] = []
        self._has_rows = False
        self._clocks: dict[str, float | None] = {}
        self._lock_path = config.data_dir.resolve() / f"node-{config.local_node}.lock"
        self._worker = processes.lock_holder(self._lock_path)

    def findings(self) -> Iterator[Diagnosis]:
        yield from guarded("database", self._database)
        yield from guarded("broker", self._broker)
        yield from guarded("worker", self._workers)
        yield from guarded("processes", self._processes)
        yield from guarded("backends", self._backends)
        yield from guarded("logs", self._logs)
        yield from guarded("open files", self._descriptors)
        yield from guarded("clock", lambda: host.judge_clock(time.time(), self._clocks))

    def _database(self) -> Iterator[Diagnosis]:
        database.be_impatient()
        yield from database.judge(database.look(self._config))
        if not self._config.database.path.exists() and self._config.database.url is None:
            return
        try:
            self._nodes = list(Node.objects.all())
            self._instances = list(Instance.objects.filter(node__name=self._config.local_node))
            self._has_rows = True
        except django.db.Error:
            return  # which has been said
        finally:
            connections.close_all()

    def _broker(self) -> Iterator[Diagnosis]:
        facts = broker.look(self._config)
        yield from broker.judge(facts)
        if facts.unix_time is not None:
            self._clocks["the broker"] = facts.unix_time

    def _workers(self) -> Iterator[Diagnosis]:
        now = time.time()
        local = self._config.local_node
        seen = False
        for node in self._nodes:
            is_local = node.name == local
            if node.kind == Node.Kind.PEER or (node.heartbeat_at is None and not is_local):
                continue
            seen = seen or is_local
            beat = node.heartbeat_at.timestamp() if node.heartbeat_at else None
            if beat is not None and beat > now:
                self._clocks[f"the worker of {node.name}"] = beat
            yield from services.judge_worker(
                services.WorkerFacts(
                    node.name,
                    None if beat is None else max(0.0, now - beat),
                    is_local=is_local,
                    is_drained=node.is_drained,
                    lock_holder=self._worker if is_local else None,
                )
            )
        if not seen:
            yield from services.judge_worker(
                services.WorkerFacts(local, None, lock_holder=self._worker, is_known=self._has_rows)
            )

    def _processes(self) -> Iterator[Diagnosis]:
        known = {each.pid: each.name for each in self._instances if each.pid is not None}
        grace = self._config.instances.orphan_grace
        now = timezone.now()
        is_alive = any(
            node.is_alive(now) for node in self._nodes if node.name == self._config.local_node
        )
        facts = processes.look(
            self._lock_path,
            known if self._has_rows else None,
            worker=self._worker,
            has_worker=is_alive or self._worker is not None,
            grace_seconds=grace,
        )
        yield from processes.judge(facts)
        yield from ports.judge_instances(
            ports.look_at_instances(
                {each.port: each.name for each in self._instances},
                set(facts.marked) | set(known),
                set(facts.ours) | set(known),
            )
        )

    def _backends(self) -> Iterator[Diagnosis]:
        used = {str(each.options.get("backend_type")) for each in self._instances}
        found = backends.look(
            self._config, used, lambda kind: program_output(kind, "--version", self._config)
        )
        for facts in found:
            yield from backends.judge(facts)

    def _logs(self) -> Iterator[Diagnosis]:
        yield from storage.judge_logs(storage.look_at_logs(self._config))

    def _descriptors(self) -> Iterator[Diagnosis]:
        pids = {} if self._worker is None else {"the worker": self._worker}
        yield from host.judge_descriptors(host.look_at_descriptors(pids))
