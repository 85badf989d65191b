"""Instance options: the seed's ``options`` object as one model.

Parsing, defaults, the saved document, the JSON schema of the API's documentation and the fields of
the admin's form all come from ``InstanceOptions``. A new option is one field of that model, and its
name in a section of ``instances.admin.form`` if the option is to have a certain place there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, ValidationInfo, field_validator

from instances.backends.registry import backend_for, backend_types, default_backend_type
from instances.errors import InvalidInstance
from instances.limits import ResourceLimits
from instances.option_document import SHOWN_CHARACTERS, AtLaunch, DefaultFrom, OptionDocument
from instances.option_types import (
    AbsolutePath,
    Aliases,
    BackendOptions,
    BackendType,
    Count,
    Environment,
    ImageName,
    Lines,
    NodeNames,
    ShellWords,
    Text,
)
from instances.request_options import RequestOptions
from llamactl.core.errors import InvalidRequest

if TYPE_CHECKING:
    from llamactl.config import AppConfig

_IN_COMMAND = AtLaunch(in_command=True)


class InstanceOptions(OptionDocument):
    """Options of an instance, defaults filled in.

    Unknown names are ignored, as in the seed. An option without a static default is in every
    document; the others only where they differ from it. The order of the fields is that of the
    document, and of the errors. Titles and descriptions are read in the admin's form too.
    """

    backend_type: Annotated[
        BackendType, DefaultFrom(lambda config: default_backend_type()), _IN_COMMAND
    ] = Field(
        title="Backend",
        description=f"Program that serves the model. Default: {default_backend_type()}.",
    )
    backend_options: Annotated[BackendOptions, DefaultFrom(lambda config: {}), _IN_COMMAND] = Field(
        title="Backend options",
        description="Options of the backend's program, named after its flags in snake_case"
        " (`ctx_size` for `--ctx-size`). Flags unknown to llamactl are accepted here and in"
        " `extra_args`. `port` requests a port.",
    )
    nodes: Annotated[NodeNames, DefaultFrom(lambda config: [config.local_node])] = Field(
        title="Nodes", description="Nodes that may run the instance. Default: this node."
    )
    auto_restart: Annotated[
        bool, DefaultFrom(lambda config: config.instances.default_auto_restart)
    ] = Field(
        title="Restart after a crash", description="Whether a crashed backend is started again."
    )
    max_restarts: Annotated[
        Count, DefaultFrom(lambda config: config.instances.default_max_restarts)
    ] = Field(title="Max restarts", description="Restarts in a row before the instance fails.")
    restart_delay: Annotated[
        Count, DefaultFrom(lambda config: config.instances.default_restart_delay)
    ] = Field(
        title="Restart delay (s)",
        description="Seconds before the first restart. Each further restart waits twice as long,"
        " up to a minute.",
    )
    on_demand_start: Annotated[
        bool, DefaultFrom(lambda config: config.instances.default_on_demand_start)
    ] = Field(
        title="Start on demand",
        description="Whether a request starts the instance and waits until it is ready.",
    )
    idle_timeout: Annotated[
        Count, DefaultFrom(lambda config: config.instances.default_idle_timeout)
    ] = Field(
        title="Idle timeout (min)",
        description="Minutes without a request before the instance is stopped. 0: never stopped for"
        " being idle.",
    )
    keepalive_blanks: bool = Field(
        default=False,
        title="Blanks while waiting",
        description="Whether a request without a stream gets the status 200 and blanks while it"
        " waits for long (`server.keepalive_after`), so that no proxy in front gives up. Blanks may"
        " precede any JSON, but a later failure is an error in a response of status 200, and some"
        " clients take it for an answer.",
    )
    pinned: bool = Field(
        default=False,
        title="Pinned",
        description="Whether the instance keeps its capacity: it is never preempted for another"
        " one.",
    )
    environment: Annotated[Environment, _IN_COMMAND] = Field(
        default={}, title="Environment", description="Environment variables of the process."
    )
    docker_enabled: Annotated[bool | None, _IN_COMMAND] = Field(
        default=None,
        title="Run in Docker",
        description="Whether the backend runs in a container. Default: as configured.",
    )
    docker_image: Annotated[ImageName, _IN_COMMAND] = Field(
        default="",
        title="Docker image",
        description="Image of the container. Default: as configured.",
    )
    docker_args: Annotated[ShellWords, _IN_COMMAND] = Field(
        default="",
        title="Docker arguments",
        description="Further arguments of `docker run`, as in a shell: `-v /models:/models`.",
    )
    command_override: Annotated[Text, _IN_COMMAND] = Field(
        default="",
        title="Command override",
        description="Program to start instead of the configured one. Not used with Docker.",
    )
    preset_ini: Annotated[Lines, AtLaunch()] = Field(
        default="",
        title="Model presets",
        description="Text of an INI file with a section of options for each model of a llama.cpp"
        " router; given to the program by `--models-preset`.",
    )
    group: Text = Field(
        default="",
        title="Group",
        description="Label. Instances of a group share the limit that `group_limits` sets for it.",
    )
    working_directory: Annotated[AbsolutePath, _IN_COMMAND] = Field(
        default="",
        title="Working directory",
        description="Absolute path on the node. Default: the data directory. Not used with Docker.",
    )
    limits: Annotated[ResourceLimits, AtLaunch(in_docker=False)] = Field(
        default=ResourceLimits(),
        title="Limits",
        description="Resource limits of the process. Not used with Docker.",
    )

    aliases: Aliases = Field(
        default=[],
        title="Aliases",
        description="Further names by which the `model` of a request finds the instance, such as"
        " `gpt-4o` or `owner/model:tag`. No other instance may have one of them as its name or"
        " alias.",
    )
    list_aliases: bool = Field(
        default=True,
        title="List the aliases",
        description="Whether `/v1/models` lists the aliases beside the instance's name.",
    )
    request: RequestOptions = Field(
        default=RequestOptions(),
        title="Request defaults",
        description="Fields to set in, and to drop from, the JSON body of each request.",
    )

    @field_validator("docker_enabled")
    @classmethod
    def _only_with_a_container(cls, enabled: bool | None, info: ValidationInfo) -> bool | None:
        """Drop ``docker_enabled`` for a backend without a container image, such as MLX."""
        backend_type = info.data.get("backend_type")
        if info.context is None or backend_type is None:
            return enabled
        section = backend_for(backend_type).config_section(info.context)
        return None if section.docker is None else enabled

    @field_validator("preset_ini")
    @classmethod
    def _only_where_presets_are_read(cls, text: str, info: ValidationInfo) -> str:
        """Refuse presets that no program would read, or that a file of the operator replaces."""
        backend_type = info.data.get("backend_type")
        if not text or info.context is None or backend_type is None:
            return text
        option = backend_for(backend_type).preset_option
        if not option:
            raise ValueError(f"is not read by a program of the type {backend_type}; leave it out")
        if info.data.get("backend_options", {}).get(option):
            raise ValueError(f"and backend_options.{option} name two files; leave one of them out")
        return text

    @field_validator("command_override", mode="before")
    @classmethod
    def _only_without_docker(cls, command: object, info: ValidationInfo) -> object:
        return "" if info.data.get("docker_enabled") else command


def parse_new(document: Mapping[str, object], config: AppConfig) -> InstanceOptions:
    """Return the options of a new instance. Raises InvalidRequest or InvalidInstance."""
    _refuse_blank_type(document)
    return InstanceOptions.parse(document, config)


def parse_replacing(
    stored: Mapping[str, object], document: Mapping[str, object], config: AppConfig
) -> InstanceOptions:
    """Return the options of an instance after an update of its ``stored`` ones.

    The node stays, but a document must not name an unknown one. A backend that is left out stays
    too, and so do its options: their defaults would make another thing of the instance. Raises
    InvalidRequest or InvalidInstance.
    """
    _refuse_blank_type(document)
    given = {name: value for name, value in document.items() if value is not None}
    kept = {"backend_type": stored["backend_type"]}
    if given.get("backend_type", stored["backend_type"]) == stored["backend_type"]:
        kept["backend_options"] = stored["backend_options"]
    elif given["backend_type"] in backend_types() and "backend_options" not in given:
        raise InvalidInstance(
            "backend_options must be given with another backend_type, got none: the options of"
            f" {stored['backend_type']} are not those of"
            f" {str(given['backend_type'])[:SHOWN_CHARACTERS]}"
        )
    replaced = {**kept, **given, "nodes": stored["nodes"]}
    if given.get("nodes", stored["nodes"]) != stored["nodes"]:
        InstanceOptions.parse({**replaced, "nodes": given["nodes"]}, config)  # raises as a create
    return InstanceOptions.parse(replaced, config)


def _refuse_blank_type(document: Mapping[str, object]) -> None:
    # Most often a client's unset variable, and then the default is the wrong program.
    if document.get("backend_type", default_backend_type()) in (None, ""):
        shown = "null" if document["backend_type"] is None else "an empty text"
        raise InvalidRequest(
            f"backend_type must be one of {', '.join(backend_types())}, got {shown}; leave it out"
            f" for {default_backend_type()}, or in an update to keep it"
        )
