"""Import of the Go llamactl's instances."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from django.db import transaction

from instances import lifecycle
from instances.models import Instance
from instances.options import InstanceOptions
from instances.ports import is_bindable
from llamactl.config import AppConfig, current
from llamactl.core.errors import LlamactlError
from llamactl.importer.go_database import GoInstance
from llamactl.importer.report import Entry, Outcome

CAUSE = "import"
_RUNNING = frozenset({"running", "restarting"})


def import_instances(found: tuple[GoInstance, ...]) -> tuple[list[Entry], dict[int, Instance]]:
    """Import instances; return the report, and the instance here for each id of the Go program.

    An instance of the same name that comes from elsewhere is left alone, and stands for none of
    the Go program's: a key for that one must not open this one.
    """
    config = current()
    entries: list[Entry] = []
    instances: dict[int, Instance] = {}
    order = {go.name: place for place, go in enumerate(found)}
    # First the instances that can keep their port: no other instance may get it.
    low, high = config.instances.port_range
    ports = set(range(low, high + 1)) - set(Instance.objects.values_list("port", flat=True))
    for go in sorted(found, key=lambda go: _port(go) not in ports):
        entry = Entry("instance", go.name)
        entries.append(entry)
        existing = Instance.objects.filter(name=go.name).first()
        if existing is None:
            _create(go, entry, config)
            existing = Instance.objects.filter(name=go.name).first()
        elif not _is_same(existing, go):
            entry.refuse(
                "another instance has this name here; rename one of the two and import again"
            )
            continue
        else:
            entry.outcome = Outcome.UNCHANGED
        if existing is not None:
            instances[go.id] = existing
    entries.sort(key=lambda entry: order[entry.name])
    return entries, instances


def _is_same(instance: Instance, go: GoInstance) -> bool:
    """Whether an instance was imported from ``go``: an import keeps the time of creation."""
    return int(instance.created_at.timestamp()) == go.created_at


def _create(go: GoInstance, entry: Entry, config: AppConfig) -> None:
    if go.options is None:
        entry.refuse("its options are no JSON object in the Go database")
        return
    document = _document(go.options, entry)
    pk = None if Instance.objects.filter(pk=go.id).exists() else go.id
    try:
        with transaction.atomic():
            instance = lifecycle.create(
                go.name, document, cause=CAUSE, pk=pk, assigned_port=_port(go)
            )
    except LlamactlError as error:
        entry.refuse(error.details)
        return
    created_at = datetime.fromtimestamp(go.created_at, tz=UTC)
    Instance.objects.filter(pk=instance.pk).update(created_at=created_at)
    if pk is None:
        entry.notes.append(f"id {go.id} is taken here; its id is {instance.pk} now")
    if instance.port != _port(go):
        before = f"port {_port(go)} can't be kept" if _port(go) else "it had no port"
        entry.notes.append(f"{before}; its port is {instance.port} now")
    if go.status in _RUNNING:
        _request_start(instance, entry, config)


def _document(options: Mapping[str, object], entry: Entry) -> dict[str, object]:
    """Return the options as ours: without the assigned port, and pinned where it never idled."""
    document = {name: value for name, value in options.items() if value is not None}
    backend_options = document.get("backend_options")
    if isinstance(backend_options, dict):
        document["backend_options"] = {
            name: value for name, value in backend_options.items() if name != "port"
        }
    known = InstanceOptions.model_fields
    if not document.get("idle_timeout"):
        document |= {"idle_timeout": 0, "pinned": True}
        entry.notes.append(
            "it had no idle timeout, so that it was never stopped for another: it is pinned"
        )
    for name in [name for name in document if name not in known]:
        entry.notes.append(f"the option {name[:80]} is not known here, and left out")
        del document[name]
    return document


def _request_start(instance: Instance, entry: Entry, config: AppConfig) -> None:
    """Request a running instance, unless a process has its port: the Go program may still run."""
    if instance.node.name == config.local_node and not is_bindable(instance.port):
        entry.notes.append(
            f"it ran, but stays stopped: a process listens on port {instance.port}, probably the"
            " Go program's backend; stop the Go program, then start the instance"
        )
        return
    try:
        with transaction.atomic():
            lifecycle.request_start(instance.name, cause=CAUSE)
    except LlamactlError as error:
        entry.notes.append(f"it ran, but stays stopped: {error.details}")
        return
    entry.notes.append("it ran, so it is started")


def _port(go: GoInstance) -> int | None:
    options = (go.options or {}).get("backend_options")
    port = options.get("port") if isinstance(options, dict) else None
    return port if isinstance(port, int) and not isinstance(port, bool) and port > 0 else None
