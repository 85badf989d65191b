"""Instances as JSON: the seed's fields, and ours beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from instances.backends import BACKEND_TYPES
from instances.models import Instance
from instances.states import DesiredState, Status
from llamactl.errors import InvalidRequest
from llamactl.unix_time import UnixSecondsField


class OptionsSerializer(serializers.Serializer[Any]):
    """The options document, for the schema; ``instances.options`` reads it."""

    backend_type = serializers.ChoiceField(BACKEND_TYPES, required=False)
    backend_options = serializers.DictField(
        required=False,
        help_text="The backend's own options in snake_case; flags that llamactl does not know"
        " go to extra_args.",
    )
    nodes = serializers.ListField(child=serializers.CharField(), required=False)
    auto_restart = serializers.BooleanField(required=False)
    max_restarts = serializers.IntegerField(required=False, min_value=0)
    restart_delay = serializers.IntegerField(required=False, min_value=0, help_text="Seconds.")
    on_demand_start = serializers.BooleanField(required=False)
    idle_timeout = serializers.IntegerField(
        required=False, min_value=0, help_text="Minutes; 0 never stops it for idleness."
    )
    environment = serializers.DictField(child=serializers.CharField(), required=False)
    docker_enabled = serializers.BooleanField(required=False)
    command_override = serializers.CharField(required=False)
    group = serializers.CharField(required=False)


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


class InstanceSerializer(serializers.ModelSerializer[Instance]):
    """An instance; what follows ``options`` is not the seed's."""

    id = serializers.IntegerField(read_only=True)
    status = serializers.ChoiceField(Status.choices, source="reported_status", read_only=True)
    created = UnixSecondsField(source="created_at")
    options = serializers.SerializerMethodField()
    desired_state = serializers.ChoiceField(DesiredState.choices, read_only=True)
    wish_cause = serializers.CharField(
        read_only=True, help_text="Who asked for the desired state, such as api or supervisor:idle."
    )
    last_used_at = UnixSecondsField(allow_null=True)
    queue = serializers.SerializerMethodField()
    failure = serializers.SerializerMethodField()

    class Meta:
        model = Instance
        fields = (
            "id",
            "name",
            "status",
            "created",
            "options",
            "desired_state",
            "wish_cause",
            "queue",
            "last_used_at",
            "pid",
            "restarts",
            "failure",
        )
        read_only_fields = fields

    @extend_schema_field(OptionsSerializer)
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
        return queue if instance.is_wanted else None

    @extend_schema_field(FailureSerializer(allow_null=True))
    def get_failure(self, instance: Instance) -> dict[str, Any] | None:
        """None unless the instance is failed now."""
        if instance.reported_status != Status.FAILED:
            return None
        failure: dict[str, Any] | None = instance.failure
        return failure


class CommandSerializer(serializers.Serializer[Any]):
    """The body of a parse-command, for the schema; ``command_of`` reads it."""

    command = serializers.CharField(help_text="A command line as it would be typed in a shell.")


class ParsedCommandSerializer(serializers.Serializer[Any]):
    """The options that a command line means, fit for creating an instance."""

    backend_type = serializers.ChoiceField(BACKEND_TYPES)
    backend_options = serializers.DictField()
    environment = serializers.DictField(
        child=serializers.CharField(),
        required=False,
        help_text="Variables set before the command, if any.",
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
