"""Rules of creating, changing, starting and stopping an instance.

API, admin and proxy call these functions and hold no second copy of a rule. Each function writes
the desired state in one short transaction and, on commit, wakes the node's worker; the supervisor
there observes the outcome. ``cause`` is the origin of the request: ``api``, ``admin:<user>``,
``proxy:on_demand``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from instances.activation_hold import refuse_while_held
from instances.aliases import claim_names
from instances.desired_state import (
    has_pending_generation,
    is_by_operator,
    is_stopped_by_supervisor,
    is_stopping,
)
from instances.errors import (
    InstanceBusy,
    InstanceExists,
    InstanceNotFound,
    InstanceStopping,
    NoCapacity,
    NoCapacityForActivation,
    TooManyInstances,
)
from instances.launch import check_address
from instances.launched import Launched
from instances.models import Instance
from instances.names import validate_name
from instances.node_checks import node_of, require_worker
from instances.option_document import is_same_document
from instances.options import InstanceOptions, parse_new, parse_replacing
from instances.port_option import fixed_port_of, kept_port, stored_document, without_port
from instances.ports import choose_port
from instances.scheduling.policy import CapacityLimits, Claim, limits_of, obstacle
from instances.states import HAS_PROCESS, ON_DEMAND, DesiredState
from instances.wake import wake_node
from llamactl.config import AppConfig, current
from llamactl.core.errors import LlamactlError
from llamactl.core.events import announce
from llamactl.models import Topic
from nodes.agent import agent_for
from nodes.errors import NodeDrained
from nodes.models import Node

logger = logging.getLogger(__name__)

IDLE_RETRY_SECONDS = 60.0
"""``Retry-After`` of a request whose capacity can only come from an idle instance's stop: idle
timeouts are whole minutes."""


@dataclass(frozen=True)
class Update:
    """Outcome of an update of an instance's options."""

    instance: Instance
    is_changed: bool
    """Whether the options or the port differ from before."""
    is_restarted: bool
    """Whether a new process was requested, because the change is one of the launch."""


def get(name: str) -> Instance:
    """Return the instance called ``name``. Raises InvalidInstanceName or InstanceNotFound."""
    validate_name(name)
    try:
        return Instance.objects.select_related("node").get(name=name)
    except Instance.DoesNotExist:
        raise InstanceNotFound(name) from None


def create(
    name: str,
    document: Mapping[str, object],
    *,
    cause: str,
    pk: int | None = None,
    assigned_port: int | None = None,
) -> Instance:
    """Save a new, stopped instance.

    An import keeps the id (``pk``) and the port that another llamactl had assigned, as long as the
    port is free and in the range.

    Raises InvalidInstanceName, InvalidRequest, InvalidInstance, InstanceExists,
    AliasTaken, TooManyInstances, PortOutOfRange or PortUnavailable; nothing is saved then.
    """
    validate_name(name)
    config = current()
    options, wanted_port = without_port(parse_new(document, config))
    check_address(options, config)
    with transaction.atomic():
        node = _locked_node(options, config)
        if Instance.objects.filter(name=name).exists():
            raise InstanceExists(name)
        claim_names(name, options.aliases, is_new=True)
        limit = config.instances.max_instances
        if 0 <= limit <= Instance.objects.count():
            raise TooManyInstances(limit)
        taken = set(Instance.objects.filter(node=node).values_list("port", flat=True))
        kept = kept_port(assigned_port, taken, config)
        port = kept or choose_port(wanted_port, taken, config)
        stored = stored_document(options, wanted_port)
        instance = _inserted(Instance(pk=pk, name=name, node=node, options=stored, port=port))
        if pk is None and assigned_port is None:
            # One may be left of an earlier instance of the name; an import brings its own.
            _retire_log(name, node.name)
    logger.info("created by %s on port %d", cause, instance.port, extra={"instance": name})
    return instance


def _inserted(instance: Instance) -> Instance:
    """Insert the row. Raises InstanceExists: ports are chosen under the node's lock, names not."""
    try:
        with transaction.atomic():
            instance.save(force_insert=True)
    except IntegrityError:
        raise InstanceExists(instance.name) from None
    return instance


def update(name: str, document: Mapping[str, object], *, cause: str) -> Update:
    """Replace the options as a whole (fields left out get their defaults again).

    The node stays, and so do backend, backend options and port where they are left out. A running
    instance is restarted if the change is one of its launch. Raises as ``create``, and
    InstanceNotFound.
    """
    config = current()
    with transaction.atomic():
        # Lock order: node before instance, as everywhere. The node's lock serialises the choice of
        # a port.
        Node.objects.select_for_update().get(pk=get(name).node_id)
        instance = _locked(name)
        options, wanted_port = without_port(replaced_options(instance, document, config))
        if wanted_port == instance.port and fixed_port_of(instance) is None:
            # A client that sends the options of a GET back in a PUT does not pin the port by that.
            wanted_port = None
        if wanted_port is not None and wanted_port != instance.port:
            others = Instance.objects.filter(node=instance.node).exclude(pk=instance.pk)
            taken = set(others.values_list("port", flat=True))
            port = choose_port(wanted_port, taken, config)
        else:
            port = instance.port
        return _replace(instance, options, port, stored_document(options, wanted_port), cause=cause)


def _replace(
    instance: Instance,
    options: InstanceOptions,
    port: int,
    document: dict[str, object],
    *,
    cause: str,
) -> Update:
    """Save ``document`` and ``port`` if they are new; restart a running instance if it has to be.

    Raises AliasTaken alone: the options are valid, and the row is locked.
    """
    if port == instance.port and is_same_document(document, instance.options):
        end_failure_hold(instance.name)
        return Update(instance, is_changed=False, is_restarted=False)
    needs_process = instance.should_run and Launched(options, port).differs_from(
        Launched(instance.parsed_options, instance.port), instance.name, current()
    )
    claim_names(instance.name, options.aliases, is_new=False)
    instance.options, instance.port = document, port
    instance.edited_generation = instance.generation
    instance.save(update_fields=["options", "port", "edited_generation", "updated_at"])
    if needs_process:
        _write_desired_state(instance, DesiredState.RUNNING, new_process=True, cause=cause)
    else:
        _wake_on_commit(instance)  # for the idle timeout, the restart policy …
    logger.info("options changed by %s", cause, extra={"instance": instance.name})
    return Update(instance, is_changed=True, is_restarted=needs_process)


def end_failure_hold(name: str) -> None:
    """Let the next request start a failed instance: its operator may have mended a file."""
    with transaction.atomic():
        held = Instance.objects.filter(name=name, failure_hold_until__isnull=False)
        if held.update(edited_generation=F("generation")):
            announce(Topic.INSTANCES, name)


def replaced_options(
    instance: Instance, document: Mapping[str, object], config: AppConfig
) -> InstanceOptions:
    """Return the options of ``instance`` after an update: the document's, on the same node.

    Raises InvalidRequest, InvalidInstance or InvalidBackendOptions.
    """
    options = parse_replacing(instance.options, document, config)
    check_address(options, config)
    return options


def delete(name: str, *, cause: str) -> None:
    """Delete a stopped instance, and put its log aside.

    Raises InstanceStopping while a stop is under way, InstanceBusy if the instance may have a
    process otherwise.
    """
    with transaction.atomic():
        instance = _locked(name)
        if is_stopping(instance):
            raise InstanceStopping(name)
        if instance.should_run or instance.pid is not None or instance.status in HAS_PROCESS:
            raise InstanceBusy(
                f"instance with name {name} is still {instance.reported_status.value}, stop it"
                " before deleting"
            )
        instance.delete()
        node = instance.node.name
        transaction.on_commit(lambda: _retire_log(name, node))
        announce(Topic.INSTANCES, name)
    logger.info("deleted by %s", cause, extra={"instance": name})


def request_start(name: str, *, cause: str, may_evict: bool = True) -> Instance:
    """Request a running instance; a running or starting instance stays as it is.

    The start may wait for capacity; with ``may_evict`` others may be stopped for it. Raises
    NodeDrained, NoCapacity where the limits can never allow the start, and for ``proxy:on_demand``
    NoCapacityForActivation, StoppedByOperator or BackendStartFailed (in a hold).
    """
    with transaction.atomic():
        limits = _locked_limits(name, may_evict=may_evict)
        instance = _locked(name)
        if not instance.should_run:
            _refuse_if_drained(instance)
            if cause == ON_DEMAND:
                refuse_while_held(instance, timezone.now())
            _refuse_without_capacity(instance, limits, cause)
            _write_desired_state(instance, DesiredState.RUNNING, new_process=True, cause=cause)
        elif (
            has_pending_generation(instance)
            and not is_by_operator(instance.requested_by)
            and cause != ON_DEMAND
        ):
            # The start no longer depends on the requests that wait for it, so their disconnects
            # no longer end it.
            _write_desired_state(instance, DesiredState.RUNNING, new_process=False, cause=cause)
    return instance


def request_stop(name: str, *, cause: str, is_held: bool = True) -> Instance:
    """Request a stopped instance; also aborts a start.

    The request replaces a stop by the supervisor (idle timeout, preemption) that is still under
    way: the next request then starts nothing, and the grace period is that of an operator's stop.
    ``is_held``: no request starts the instance again within ``instances.operator_stop_hold``, even
    if it was stopped already. A drain needs no hold, because it refuses every start.
    """
    with transaction.atomic():
        instance = _locked(name)
        is_preempted = is_stopped_by_supervisor(instance) and instance.status in HAS_PROCESS
        if is_held:
            _hold_stopped(instance)
        if instance.desired_state == DesiredState.RUNNING or is_preempted:
            _write_desired_state(instance, DesiredState.STOPPED, new_process=False, cause=cause)
        elif is_held:
            announce(Topic.INSTANCES, instance.name)
    return instance


def _hold_stopped(instance: Instance) -> None:
    seconds = current().instances.operator_stop_hold
    instance.stop_hold_until = timezone.now() + timedelta(seconds=seconds)
    instance.save(update_fields=["stop_hold_until"])


def request_restart(name: str, *, cause: str) -> Instance:
    """Request a new process, for a running or a stopped instance. Raises as ``request_start``."""
    with transaction.atomic():
        limits = _locked_limits(name)
        instance = _locked(name)
        _refuse_if_drained(instance)
        if not instance.should_run:
            _refuse_without_capacity(instance, limits, cause)
        _write_desired_state(instance, DesiredState.RUNNING, new_process=True, cause=cause)
    return instance


def local_node(config: AppConfig) -> Node:
    """Return the row of this process's node; create the row if there is none."""
    return Node.objects.get_or_create(name=config.local_node)[0]


def _retire_log(name: str, node: str) -> None:
    """Put the log of a deleted instance aside; a log that stays is no reason to refuse."""
    try:
        agent_for(node).retire_log(name)
    except LlamactlError as error:
        logger.warning("the old log stays: %s", error.details, extra={"instance": name})


def _locked(name: str) -> Instance:
    """Return the row, locked until the transaction ends (SQLite locks the whole database)."""
    validate_name(name)
    try:
        rows = Instance.objects.select_for_update(of=("self",)).select_related("node")
        return rows.get(name=name)
    except Instance.DoesNotExist:
        raise InstanceNotFound(name) from None


def _locked_node(options: InstanceOptions, config: AppConfig) -> Node:
    """Return the node to create on, locked to serialise decisions on ports and limits."""
    name = node_of(options, config)
    Node.objects.get_or_create(name=name)
    node = Node.objects.select_for_update().get(name=name)
    require_worker(node, config)
    return node


def _refuse_if_drained(instance: Instance) -> None:
    """Raise NodeDrained if so. Reads the node anew: a drain may have held the instance's lock.

    Raises InvalidInstance if the node has no worker.
    """
    require_worker(instance.node, current())
    if Node.objects.filter(pk=instance.node_id, drained_at__isnull=False).exists():
        raise NodeDrained(instance.node.name)


def _locked_limits(name: str, *, may_evict: bool = True) -> CapacityLimits:
    """Return the limits of the instance's node, and lock the node if any are set."""
    limits = limits_of(current().instances)
    if limits.are_set:
        # Lock order: node before instance, as everywhere.
        Node.objects.select_for_update().get(pk=get(name).node_id)
    return limits if may_evict else limits.without_preemption()


def _refuse_without_capacity(instance: Instance, limits: CapacityLimits, cause: str) -> None:
    """Raise NoCapacity if the limits can never allow the start; preemption is the supervisor's."""
    if not limits.are_set:
        return
    others = Instance.objects.filter(node=instance.node).exclude(pk=instance.pk)
    claims = [_claim(each) for each in others if each.should_run]
    found = obstacle(limits, claims, _claim(instance))
    if found is None:
        return
    if cause == ON_DEMAND:
        retry_after = IDLE_RETRY_SECONDS if found.is_temporary else None
        raise NoCapacityForActivation(instance.name, found.reason, retry_after=retry_after)
    raise NoCapacity(instance.name, found.reason)


def _claim(instance: Instance) -> Claim:
    options = instance.options
    return Claim(
        instance.name,
        options.get("group", ""),
        is_pinned=options.get("pinned", False),
        stops_when_idle=bool(options["idle_timeout"]),
    )


def _write_desired_state(
    instance: Instance, desired: DesiredState, *, new_process: bool, cause: str
) -> None:
    generation = F("generation") + 1 if new_process else F("generation")
    if desired == DesiredState.RUNNING:
        Instance.objects.filter(pk=instance.pk).update(stop_hold_until=None)
    Instance.objects.filter(pk=instance.pk).update(
        desired_state=desired,
        generation=generation,
        requested_by=cause,
        updated_at=timezone.now(),
    )
    instance.refresh_from_db()
    announce(Topic.INSTANCES, instance.name)
    _wake_on_commit(instance)
    logger.info(
        "desired state requested by %s: %s (generation %d)",
        cause,
        desired.value,
        instance.generation,
        extra={"instance": instance.name},
    )


def _wake_on_commit(instance: Instance) -> None:
    node = instance.node.name
    transaction.on_commit(lambda: wake_node(node))
