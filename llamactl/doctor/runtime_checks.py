"""Checks of database, broker, worker and backends, for a Django that is set up."""

from __future__ import annotations

import time
from collections.abc import Iterator

import django.db
from django.db import connections
from django.utils import timezone

from instances.models import Instance
from instances.program_info import program_output
from llamactl.config import AppConfig
from llamactl.doctor import (
    backends,
    broker,
    database,
    environment,
    host,
    instances,
    ports,
    processes,
    services,
    storage,
)
from llamactl.doctor.diagnosis import Diagnosis, guarded
from llamactl.importer.run import notice
from nodes.models import Node


class RuntimeChecks:
    """One run of the checks, in order: later checks use the rows and clocks of earlier ones."""

    def __init__(self, config: AppConfig) -> None:
        self._config = config
        self._instances: list[Instance] = []
        self._nodes: list[Node] = []
        self._has_rows = False
        self._clocks: dict[str, float | None] = {}
        self._lock_path = config.data_dir.resolve() / f"node-{config.local_node}.lock"
        self._worker = processes.lock_holder(self._lock_path)

    def run(self) -> Iterator[Diagnosis]:
        yield from guarded("database", self._database)
        yield from guarded("broker", self._broker)
        yield from guarded("worker", self._workers)
        yield from guarded("processes", self._processes)
        yield from guarded("backends", self._backends)
        yield from guarded("environment", self._environment)
        yield from guarded("instances", self._idle_timeouts)
        yield from guarded("logs", self._logs)
        yield from guarded("open files", self._descriptors)
        yield from guarded("clock", self._clock)

    def _database(self) -> Iterator[Diagnosis]:
        database.shorten_timeouts()
        yield from database.diagnose(database.collect(self._config))
        if not self._config.database.path.exists() and self._config.database.url is None:
            return
        try:
            self._nodes = list(Node.objects.all())
            self._instances = list(Instance.objects.filter(node__name=self._config.local_node))
            self._has_rows = True
            yield from database.diagnose_go_database(notice(self._config))
        except django.db.Error:
            return  # the diagnosis above has reported the error
        finally:
            connections.close_all()

    def _broker(self) -> Iterator[Diagnosis]:
        facts = broker.collect(self._config)
        yield from broker.diagnose(facts)
        if facts.unix_time is not None:
            self._clocks["the broker"] = facts.unix_time

    def _workers(self) -> Iterator[Diagnosis]:
        now = time.time()
        local = self._config.local_node
        has_local_node = False
        for node in self._nodes:
            is_local = node.name == local
            if node.kind == Node.Kind.PEER or (node.heartbeat_at is None and not is_local):
                continue
            has_local_node = has_local_node or is_local
            beat = node.heartbeat_at.timestamp() if node.heartbeat_at else None
            if beat is not None and beat > now:
                self._clocks[f"the worker of {node.name}"] = beat
            yield from services.diagnose_worker(
                services.WorkerFacts(
                    node.name,
                    None if beat is None else max(0.0, now - beat),
                    is_local=is_local,
                    is_drained=node.is_drained,
                    lock_holder=self._worker if is_local else None,
                )
            )
        if not has_local_node:
            yield from services.diagnose_worker(
                services.WorkerFacts(local, None, lock_holder=self._worker, is_known=self._has_rows)
            )

    def _processes(self) -> Iterator[Diagnosis]:
        known = {each.pid: each.name for each in self._instances if each.pid is not None}
        grace = self._config.instances.orphan_grace
        now = timezone.now()
        is_alive = any(
            node.is_alive(now) for node in self._nodes if node.name == self._config.local_node
        )
        facts = processes.collect(
            self._lock_path,
            known if self._has_rows else None,
            worker=self._worker,
            has_worker=is_alive or self._worker is not None,
            grace_seconds=grace,
        )
        yield from processes.diagnose(facts)
        yield from ports.diagnose_instances(
            ports.collect_instances(
                {each.port: each.name for each in self._instances},
                set(facts.marked) | set(known),
                set(facts.ours) | set(known),
            )
        )

    def _backends(self) -> Iterator[Diagnosis]:
        used = {str(each.options.get("backend_type")) for each in self._instances}
        found = backends.collect(
            self._config, used, lambda kind: program_output(kind, "--version", self._config)
        )
        for facts in found:
            yield from backends.diagnose(facts)

    def _environment(self) -> Iterator[Diagnosis]:
        yield from environment.diagnose(environment.collect(self._worker))

    def _idle_timeouts(self) -> Iterator[Diagnosis]:
        yield from instances.diagnose_idle_timeouts(
            (each.name, each.options) for each in self._instances
        )

    def _clock(self) -> Iterator[Diagnosis]:
        newest = storage.newest_file(self._config.data_dir)
        now = time.time()
        if newest > now:
            self._clocks["the newest file in data_dir"] = newest
        yield from host.diagnose_clock(now, self._clocks)

    def _logs(self) -> Iterator[Diagnosis]:
        yield from storage.diagnose_logs(storage.collect_logs(self._config))

    def _descriptors(self) -> Iterator[Diagnosis]:
        pids = {} if self._worker is None else {"the worker": self._worker}
        yield from host.diagnose_descriptors(host.collect_descriptors(pids))
