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


class LimitsSerializer(serializers.Serializer[Any]):
    """What the process may have of its host, for the schema; ``instances.limits`` reads it."""

    nice = serializers.IntegerField(required=False, min_value=0, max_value=19)
    cpus = serializers.CharField(
        required=False, help_text="The CPUs it may run on, such as 0-3,8; or a list of numbers."
    )
    open_files = serializers.IntegerField(required=False, min_value=64)
    memory_mb = serializers.IntegerField(
        required=False,
        min_value=16,
        help_text="Memory of its own. A mapped model file does not count, nor does a GPU's memory.",
    )
    core_dumps = serializers.BooleanField(required=False)
    oom_score_adj = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=1000,
        help_text="How soon the kernel picks it when memory runs out; 1000 first.",
    )


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
    working_directory = serializers.CharField(
        required=False,
        help_text="An absolute path on the node; the data directory, if left out. Not for docker.",
    )
    limits = LimitsSerializer(required=False, help_text="Not for docker.")


class FailureSerializer(serializers.Serializer[Any]):
    """Why an instance failed."""

    reason = serializers.CharField(help_text="A code for programs, such as out_of_memory.")
    details = serializers.CharField()
    exit_code = serializers.IntegerField(allow_null=True)
    log_tail = serializers.ListField(child=serializers.CharField())


class InstanceSerializer(serializers.ModelSerializer[Instance]):
    """An instance; ``desired_state``, ``pid``, ``restarts`` and ``failure`` are not the seed's."""

    id = serializers.IntegerField(read_only=True)
    status = serializers.ChoiceField(Status.choices, source="reported_status", read_only=True)
    created = UnixSecondsField(source="created_at")
    options = serializers.SerializerMethodField()
    desired_state = serializers.ChoiceField(DesiredState.choices, read_only=True)
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


class RehearsalSerializer(serializers.Serializer[Any]):
    """What would be started; nothing was saved."""

    command = serializers.ListField(
        child=serializers.CharField(), help_text="The arguments, secrets masked."
    )
    command_line = serializers.CharField(
        help_text="The same to paste into a shell, with the instance's own variables but for"
        " secret ones."
    )
    environment = serializers.DictField(
        child=serializers.CharField(),
        help_text="What is added to the environment; secret values are masked.",
    )
    working_directory = serializers.CharField(
        help_text="Relative paths in the options are relative to it."
    )
    options = OptionsSerializer(help_text="The options as they would be saved.")
    errors = FindingSerializer(many=True)  # type: ignore[assignment]  # a field is no attribute
    warnings = FindingSerializer(many=True)


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
