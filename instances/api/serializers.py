"""Instances as JSON: the seed's fields, and ours beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from instances.api.options_schema import EnvironmentField, OptionsField, shows_options
from instances.backends import backend_types
from instances.models import Instance
from instances.states import DesiredState, Status
from llamactl.core.errors import InvalidRequest
from llamactl.core.unix_time import UnixSecondsField


class FailureSerializer(serializers.Serializer[Any]):
    """Why an instance failed."""

    reason = serializers.CharField(help_text="A code for programs, such as out_of_memory.")
    details = serializers.CharField()
    exit_code = serializers.IntegerField(allow_null=True)
    log_tail = serializers.ListField(child=serializers.CharField())


class QueueSerializer(serializers.Serializer[Any]):
    """What an instance waits for that has no room yet."""

    place = serializers.IntegerField(help_text="1 is next.")
    length = serializers.IntegerField()
    reason = serializers.CharField()


@extend_schema_serializer(deprecate_fields=["wish_cause"])
class InstanceSerializer(serializers.ModelSerializer[Instance]):
    """An instance: what was asked for, and how it is."""

    # desired_state, pid, restarts and failure are not the seed's.
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
        help_text="The former name of `requested_by`; it goes with the next release.",
    )
    last_used_at = UnixSecondsField(allow_null=True)
    queue = serializers.SerializerMethodField()
    failure = serializers.SerializerMethodField()

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
        )
        read_only_fields = fields

    @shows_options
    def get_options(self, instance: Instance) -> dict[str, Any]:
        """The stored document with the instance's port in it, as the seed shows it."""
        options = instance.options
        return {
            **options,
            "backend_options": {**options["backend_options"], "port": instance.port},
        }

    @extend_schema_field(QueueSerializer(allow_null=True))
    def get_queue(self, instance: Instance) -> dict[str, Any] | None:
        """Its place and why it waits, while it is wished to run and has no room."""
        queue: dict[str, Any] | None = instance.queue
        return queue if instance.should_run else None

    @extend_schema_field(FailureSerializer(allow_null=True))
    def get_failure(self, instance: Instance) -> dict[str, Any] | None:
        """None unless the instance is failed now."""
        if instance.reported_status != Status.FAILED:
            return None
        failure: dict[str, Any] | None = instance.failure
        return failure


class FindingSerializer(serializers.Serializer[Any]):
    """Where the options don't fit what is really there: the program, or a file."""

    field = serializers.CharField(help_text="Such as backend_options.model.")
    severity = serializers.ChoiceField(
        ["error", "warning"],
        help_text="With an error it can't start; a warning may be nothing.",
    )
    message = serializers.CharField()
    suggestion = serializers.CharField(help_text="What to do instead; may be empty.")


class SavedInstanceSerializer(InstanceSerializer):
    """An instance that was just saved, with what a check of its options found."""

    warnings = FindingSerializer(
        many=True, required=False, help_text="Left out where there is nothing to say."
    )

    class Meta(InstanceSerializer.Meta):
        fields = (*InstanceSerializer.Meta.fields, "warnings")
        read_only_fields = fields


class DryRunSerializer(serializers.Serializer[Any]):
    """What would be started; nothing was saved."""

    command = serializers.ListField(
        child=serializers.CharField(), help_text="The arguments, secrets masked."
    )
    command_line = serializers.CharField(
        help_text="The same to paste into a shell, with the instance's own variables but for"
        " secret ones."
    )
    environment = EnvironmentField(
        help_text="What is added to the environment; secret values are masked."
    )
    working_directory = serializers.CharField(
        help_text="Relative paths in the options are relative to it."
    )
    options = OptionsField(help_text="The options as they would be saved.")
    errors = FindingSerializer(many=True)  # type: ignore[assignment]  # a field is no attribute
    warnings = FindingSerializer(many=True)


class CommandSerializer(serializers.Serializer[Any]):
    """A command line."""

    # For the schema alone: ``command_of`` reads the document.
    command = serializers.CharField(help_text="A command line as it would be typed in a shell.")


class ParsedCommandSerializer(serializers.Serializer[Any]):
    """The options that a command line means, fit for creating an instance."""

    backend_type = serializers.ChoiceField(backend_types())
    backend_options = serializers.DictField()
    environment = EnvironmentField(
        required=False, help_text="Variables set before the command, if any."
    )


def command_of(document: Mapping[str, object] | None) -> str:
    """The command in a parse-command body. Raises InvalidRequest where it is no text."""
    command = (document or {}).get("command", "")
    if not isinstance(command, str):
        raise InvalidRequest("Invalid request body: command must be a string")
    return command


def whole_options(document: Mapping[str, object] | None) -> Mapping[str, object]:
    """The options in an update's body.

    Raises InvalidRequest for an empty body: an update replaces everything, so it would silently
    turn every option into its default.
    """
    if document is None:
        raise InvalidRequest(
            "Invalid request body: it is empty; send all the options, for those left out get their"
            " defaults"
        )
    return document
