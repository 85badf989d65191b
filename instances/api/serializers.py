"""JSON form of instances: the seed's fields, and llamactl's own beside them."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from instances.api.options_schema import EnvironmentField, OptionsField, shows_options
from instances.backends.registry import backend_types
from instances.errors import BackendStartFailed, StoppedByOperator
from instances.models import Instance
from instances.option_document import json_kind
from instances.options import InstanceOptions
from instances.states import DesiredState, Status
from llamactl.core.errors import InvalidRequest
from llamactl.core.unix_time import UnixSecondsField


class FailureSerializer(serializers.Serializer[Any]):
    """Failure of an instance: reason, exit code, last lines of the log."""

    reason = serializers.CharField(help_text="Machine-readable code, such as out_of_memory.")
    details = serializers.CharField()
    exit_code = serializers.IntegerField(allow_null=True)
    log_tail = serializers.ListField(child=serializers.CharField())


class QueueSerializer(serializers.Serializer[Any]):
    """Place of an instance in the queue for capacity."""

    place = serializers.IntegerField(help_text="1 is the next to start.")
    length = serializers.IntegerField()
    reason = serializers.CharField()


class HoldSerializer(serializers.Serializer[Any]):
    """A time in which no request starts the instance, only an operator."""

    until = serializers.IntegerField(help_text="End of the hold, unix seconds.")
    reason = serializers.ChoiceField(
        [StoppedByOperator.code, BackendStartFailed.code],
        help_text="Code of the error that requests get until then.",
    )


@extend_schema_serializer(deprecate_fields=["wish_cause"])
class InstanceSerializer(serializers.ModelSerializer[Instance]):
    """An instance: options, desired state, observed state."""

    # The seed has neither desired_state, pid, restarts nor failure.
    id = serializers.IntegerField(read_only=True)
    status = serializers.ChoiceField(Status.choices, source="reported_status", read_only=True)
    created = UnixSecondsField(source="created_at")
    options = serializers.SerializerMethodField()
    desired_state = serializers.ChoiceField(DesiredState.choices, read_only=True)
    requested_by = serializers.CharField(
        read_only=True,
        help_text="Origin of the desired state: api, admin:<user>, proxy:on_demand or"
        " supervisor:<reason>.",
    )
    wish_cause = serializers.CharField(
        source="requested_by",
        read_only=True,
        help_text="Former name of `requested_by`; removed in the next release.",
    )
    last_used_at = UnixSecondsField(allow_null=True)
    queue = serializers.SerializerMethodField()
    pid = serializers.SerializerMethodField()
    failure = serializers.SerializerMethodField()
    hold = serializers.SerializerMethodField()

    class Meta:
        model = Instance
        fields: tuple[str, ...] = (
            "id",
            "name",
            "status",
            "created",
            "options",
            "desired_state",
            "requested_by",
            "wish_cause",
            "queue",
            "last_used_at",
            "pid",
            "restarts",
            "failure",
            "hold",
        )
        read_only_fields = fields

    @shows_options
    def get_options(self, instance: Instance) -> dict[str, Any]:
        """Saved options with the instance's port, as the seed shows them."""
        options = instance.options
        return {
            **options,
            "backend_options": {**options["backend_options"], "port": instance.port},
        }

    @extend_schema_field(QueueSerializer(allow_null=True))
    def get_queue(self, instance: Instance) -> dict[str, Any] | None:
        """Place in the queue and reason, while the start waits for capacity; else null."""
        queue: dict[str, Any] | None = instance.queue
        return queue if instance.should_run else None

    @extend_schema_field(serializers.IntegerField(allow_null=True))
    def get_pid(self, instance: Instance) -> int | None:
        """Process id; null while the process of a requested start or restart is yet to come."""
        is_pending = instance.desired_state == DesiredState.RUNNING
        return None if is_pending and instance.has_pending_generation else instance.pid

    @extend_schema_field(FailureSerializer(allow_null=True))
    def get_failure(self, instance: Instance) -> dict[str, Any] | None:
        """Reason of the failure while the status is `failed`; else null."""
        if instance.reported_status != Status.FAILED:
            return None
        failure: dict[str, Any] | None = instance.failure
        return failure

    @extend_schema_field(HoldSerializer(allow_null=True))
    def get_hold(self, instance: Instance) -> dict[str, Any] | None:
        """Hold after an operator's stop or a failed start: no request starts the instance; else
        null."""
        hold = instance.hold_at(timezone.now())
        if hold is None:
            return None
        return {"until": ceil(hold.until.timestamp()), "reason": hold.reason}


class FindingSerializer(serializers.Serializer[Any]):
    """A mismatch between an option and the installed program or a file."""

    field = serializers.CharField(help_text="Path of the option, such as backend_options.model.")
    severity = serializers.ChoiceField(
        ["error", "warning"],
        help_text="An instance with an error cannot start; a warning may be harmless.",
    )
    message = serializers.CharField()
    suggestion = serializers.CharField(help_text="Proposed change; may be empty.")


class SavedInstanceSerializer(InstanceSerializer):
    """A saved instance with the findings of the preflight check."""

    warnings = FindingSerializer(
        many=True, required=False, help_text="Missing if the check finds nothing."
    )

    class Meta(InstanceSerializer.Meta):
        fields = (*InstanceSerializer.Meta.fields, "warnings")
        read_only_fields = fields


class UpdatedInstanceSerializer(SavedInstanceSerializer):
    """An instance after an update, with the effect of the update."""

    changed = serializers.BooleanField(help_text="Whether an option or the port is another now.")
    restarted = serializers.BooleanField(
        help_text="Whether a new process was requested: what is launched has changed."
    )

    class Meta(SavedInstanceSerializer.Meta):
        fields = (*SavedInstanceSerializer.Meta.fields, "changed", "restarted")
        read_only_fields = fields


class DryRunSerializer(serializers.Serializer[Any]):
    """Outcome of a dry run: command, options, findings. Nothing is saved."""

    command = serializers.ListField(
        child=serializers.CharField(), help_text="Arguments, secrets masked."
    )
    command_line = serializers.CharField(
        help_text="The command as text for a shell, with the instance's own variables but for"
        " secret ones."
    )
    environment = EnvironmentField(
        help_text="Variables added to the worker's environment; secret values are masked."
    )
    inherited_environment = serializers.ListField(
        child=serializers.CharField(),
        help_text="Names of variables of llamactl's own environment that the process inherits."
        " Empty for another node.",
    )
    working_directory = serializers.CharField(
        help_text="Directory that the process starts in; relative paths in options start there."
    )
    options = OptionsField(help_text="The options as they would be saved.")
    errors = FindingSerializer(many=True)  # type: ignore[assignment]  # a field is no attribute
    warnings = FindingSerializer(many=True)


class CommandSerializer(serializers.Serializer[Any]):
    """A command line."""

    # For the schema alone: ``command_of`` reads the document.
    command = serializers.CharField(help_text="Command line as typed in a shell.")


class BackendTypeField(serializers.ChoiceField):
    """Type of a registered backend. DRF makes a new field for each serializer instance, so the
    choices follow the registry."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(backend_types(), **kwargs)


class ParsedCommandSerializer(serializers.Serializer[Any]):
    """Options read from a command line, fit for creating an instance."""

    backend_type = BackendTypeField()
    backend_options = serializers.DictField()
    environment = EnvironmentField(
        required=False, help_text="Variables assigned before the command, if any."
    )
    docker_enabled = serializers.BooleanField(
        required=False, help_text="True for a pasted `docker run`."
    )
    docker_image = serializers.CharField(required=False, help_text="Its image.")
    docker_args = serializers.CharField(
        required=False, help_text="Its arguments, without those that llamactl gives itself."
    )


def command_of(document: Mapping[str, object] | None) -> str:
    """Return the command in a parse-command body. Raises InvalidRequest if it is no text."""
    command = (document or {}).get("command", "")
    if not isinstance(command, str):
        raise InvalidRequest("Invalid request body: command must be a string")
    return command


def options_of(document: Mapping[str, object] | None) -> Mapping[str, object]:
    """Return the options in the body of a create or an update.

    The body may also be an instance as GET shows it: its ``options`` are taken.

    Raises InvalidRequest for an empty body, which is a client's mistake more often than a request
    for defaults alone, and for options both inside and outside of ``options``.
    """
    if document is None:
        raise InvalidRequest(
            "Invalid request body: it is empty; send the options of the instance ({} for defaults"
            " alone)"
        )
    if "options" not in document:
        return document
    options = document["options"]
    beside = sorted(document.keys() & InstanceOptions.model_fields.keys())
    if not isinstance(options, Mapping) or beside:
        raise InvalidRequest(
            "Invalid request body: options must be an object with all options,"
            f" {f'but {beside[0]} stands beside it' if beside else f'got {json_kind(options)}'};"
            " send the options themselves, or an instance as GET shows it"
        )
    own = SavedInstanceSerializer.Meta.fields
    return {**{name: value for name, value in document.items() if name not in own}, **options}
