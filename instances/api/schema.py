"""What the OpenAPI document says about the instances' operations and the backends' tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, PolymorphicProxySerializer

from instances.api import examples
from instances.api.options_schema import ReplacedOptions
from instances.api.query_params import MAX_LINES, MAX_WAIT_SECONDS
from instances.api.serializers import (
    CommandSerializer,
    DryRunSerializer,
    InstanceSerializer,
    ParsedCommandSerializer,
    SavedInstanceSerializer,
)
from instances.backends.base import Backend
from instances.backends.command_errors import CommandSyntaxError, EmptyCommand
from instances.backends.run_program import CommandFailed
from instances.errors import (
    FollowingNotServed,
    InstanceBusy,
    InstanceExists,
    InstanceNotFound,
    InstanceNotRunning,
    InvalidInstance,
    InvalidInstanceName,
    PortOutOfRange,
    PortUnavailable,
    TooManyFollowers,
    TooManyInstances,
)
from instances.names import MAX_NAME_LENGTH, NAME_PATTERN
from instances.options import InstanceOptions
from llamactl.core.errors import InvalidParameter, InvalidRequest, PathNotFound
from llamactl.openapi import EVENT_STREAM, PLAIN_TEXT, DocumentedResponse, operation
from nodes.errors import LogUnreadable, NodeDrained

_View = TypeVar("_View", bound=Callable[..., Any])

_INSTANCES = "Instances"
_BACKENDS = "Backends"

_NAME = OpenApiParameter(
    "name",
    {"type": "string", "pattern": f"^{NAME_PATTERN}$", "maxLength": MAX_NAME_LENGTH},
    OpenApiParameter.PATH,
    description="The instance: letters, digits, `_`, `-` and, not first, `.`",
    examples=[OpenApiExample(examples.NAME, value=examples.NAME)],
)
_WAIT = OpenApiParameter(
    "wait",
    {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
    description="Answer only when it is ready to be used, or failed, or after this many seconds"
    " (at most instances.on_demand_start_timeout). Without it the answer comes at once.",
)
_LINES = OpenApiParameter(
    "lines",
    {"type": "integer", "minimum": -MAX_LINES, "maximum": MAX_LINES},
    description="Only the last so many lines, over rotated files too; 0 for all of the current"
    " file. With follow the default is 100.",
)
_FOLLOW = OpenApiParameter(
    "follow",
    bool,
    description="Server-sent events instead: one for each line, the last ones first, then each as"
    " it is written, until the client goes.",
)
_LAST_EVENT_ID = OpenApiParameter(
    "Last-Event-ID",
    str,
    OpenApiParameter.HEADER,
    description="With follow: the id of the last event that the client has. Browsers send it on"
    " their own when they come back.",
)
_DRY_RUN = OpenApiParameter(
    "dry_run",
    bool,
    description="Answer 200 with what would be started and what a check of the options finds, and"
    " save nothing.",
)
_STRICT = OpenApiParameter(
    "strict",
    bool,
    description="Refuse (400, nothing is saved) where a check of the options finds an error, such"
    " as a model file that is missing. Without it they are saved all the same, and what was found"
    " is in the answer's warnings.",
)
_UNKNOWN = [
    InvalidInstanceName("name too long (max 50 characters)"),
    InstanceNotFound(examples.NAME),
]
_BAD_OPTIONS = [
    InvalidRequest("max_restarts must be a whole number, got a string"),
    InvalidInstance("node 'gpu-9' not found; known nodes: main"),
    PortOutOfRange(
        "port 80 is out of range [8000-9000]; leave port out to get a free one, or widen"
        " instances.port_range"
    ),
    PortUnavailable(
        "port 8001 is already in use: another instance has it; leave port out to get a free one"
    ),
    InvalidParameter("Invalid dry_run parameter: 'yes' is neither true nor false"),
    examples.REFUSED_BY_STRICT,
]
_START_FAILURES = [
    InvalidParameter("Invalid wait parameter: 'soon' is no number of seconds from 0 to 1000000000"),
    examples.START_FAILED,
    examples.STILL_STARTING,
    InstanceNotRunning(f"instance {examples.NAME} was stopped meanwhile"),
    NodeDrained("main"),
]

list_instances = operation(
    _INSTANCES,
    "List the instances by name",
    name="list_instances",
    answer=InstanceSerializer(many=True),
    answers={"one instance": examples.STOPPED["stopped"]},
)
create_instance = operation(
    _INSTANCES,
    "Create an instance",
    name="create_instance",
    description="It is stopped at first; start it, or let the first request under `/v1` do that."
    " Options that are left out get their defaults, and the port is chosen if none is said.",
    parameters=[_NAME, _DRY_RUN, _STRICT],
    request=InstanceOptions,
    requests=examples.NEW_INSTANCES,
    status=201,
    answer=SavedInstanceSerializer,
    answers=examples.SAVED,
    others=[DocumentedResponse(DryRunSerializer, examples.DRY_RUN)],
    errors=[
        *_BAD_OPTIONS,
        InvalidInstanceName("name cannot be empty"),
        InstanceExists(examples.NAME),
        TooManyInstances(8),
        PathNotFound("there is no /api/v1/instances/a/b; /docs lists all paths"),
    ],
)
show_instance = operation(
    _INSTANCES,
    "Show an instance",
    name="show_instance",
    parameters=[_NAME],
    answer=InstanceSerializer,
    answers=examples.ANY_STATUS,
    errors=_UNKNOWN,
)
replace_options = operation(
    _INSTANCES,
    "Replace the options of an instance",
    name="replace_instance_options",
    description="Options that are left out get their defaults again; the node stays, and so does a"
    " port that is left out. A running instance is restarted.",
    parameters=[_NAME, _DRY_RUN, _STRICT],
    request=ReplacedOptions,
    requests=examples.NEW_INSTANCES,
    answer=PolymorphicProxySerializer(
        "SavedInstanceOrDryRun",
        [SavedInstanceSerializer, DryRunSerializer],
        resource_type_field_name=None,
    ),
    answers={**examples.SAVED, **examples.DRY_RUN},
    errors=[*_BAD_OPTIONS, *_UNKNOWN],
)
delete_instance = operation(
    _INSTANCES,
    "Delete a stopped instance",
    name="delete_instance",
    description="Its log file stays.",
    parameters=[_NAME],
    status=204,
    errors=[
        *_UNKNOWN,
        InstanceBusy(
            f"instance with name {examples.NAME} is still running, stop it before deleting"
        ),
    ],
)
start_instance = operation(
    _INSTANCES,
    "Start an instance",
    name="start_instance",
    description="One that runs is left alone. Where the limits leave no room it waits for some, see"
    " `queue`; where none can ever be made, the answer is 409.",
    parameters=[_NAME, _WAIT],
    answer=InstanceSerializer,
    answers=examples.STARTING,
    errors=[*_UNKNOWN, *_START_FAILURES, examples.NO_CAPACITY],
)
stop_instance = operation(
    _INSTANCES,
    "Stop an instance",
    name="stop_instance",
    description="Ends a start that is under way, too. Requests in flight are waited for.",
    parameters=[_NAME],
    answer=InstanceSerializer,
    answers=examples.STOPPED,
    errors=_UNKNOWN,
)
restart_instance = operation(
    _INSTANCES,
    "Restart an instance",
    name="restart_instance",
    description="It gets a new process, whether or not one runs now. One that runs keeps its room.",
    parameters=[_NAME, _WAIT],
    answer=InstanceSerializer,
    answers=examples.STARTING,
    errors=[*_UNKNOWN, *_START_FAILURES, examples.NO_CAPACITY],
)
read_log = operation(
    _INSTANCES,
    "Read the log of an instance",
    name="read_instance_log",
    description="Empty before the first start. With Last-Event-ID, a log that is followed goes on"
    " after that event.",
    parameters=[_NAME, _LINES, _FOLLOW, _LAST_EVENT_ID],
    answer=str,
    answers=examples.LOG,
    media_type=PLAIN_TEXT,
    others=[DocumentedResponse(str, examples.FOLLOWED_LOG, media_type=EVENT_STREAM)],
    errors=[
        *_UNKNOWN,
        InvalidParameter("Invalid lines parameter: 'all' is no whole number"),
        InvalidParameter("Invalid follow parameter: 'yes' is neither true nor false"),
        LogUnreadable(examples.NAME, "Permission denied"),
        FollowingNotServed(
            "follow needs llamactl to be served by ASGI (manage.py run); under WSGI, ask for lines"
        ),
        TooManyFollowers(
            "100 logs are being followed already, and no more can be; end one, or read the log"
            " without follow",
            retry_after=10,
        ),
    ],
)

_PROGRAM_FAILED = CommandFailed("llama-server --help ended with exit code 1: no such file")

show_help = operation(
    _BACKENDS,
    "The help text of the llama-server program",
    name="show_llama_cpp_help",
    answer=str,
    answers={
        "help": "----- common params -----\n\n-h,    --help, --usage   print usage and exit\n"
    },
    media_type=PLAIN_TEXT,
    errors=[_PROGRAM_FAILED],
    uses_database=False,
)
show_version = operation(
    _BACKENDS,
    "The version of the llama-server program",
    name="show_llama_cpp_version",
    answer=str,
    answers={"version": "version: 7342 (2fa51c19b)\nbuilt with GNU 13.3.0 for Linux x86_64\n"},
    media_type=PLAIN_TEXT,
    errors=[_PROGRAM_FAILED],
    uses_database=False,
)
list_devices = operation(
    _BACKENDS,
    "The devices that the llama-server program can use",
    name="list_llama_cpp_devices",
    answer=str,
    answers={"devices": "Available devices:\n  CUDA0: NVIDIA A100 (40536 MiB, 40100 MiB free)\n"},
    media_type=PLAIN_TEXT,
    errors=[_PROGRAM_FAILED],
    uses_database=False,
)


def parse_command(backend: Backend) -> Callable[[_View], _View]:
    """Turns a command line of this backend's program into options."""
    command = backend.example_command
    parsed = backend.parse_command(command)
    answer: dict[str, object] = {
        "backend_type": backend.type,
        "backend_options": parsed.backend_options,
    }
    if parsed.environment:
        answer["environment"] = parsed.environment
    return operation(
        _BACKENDS,
        f"Turn a command line of {backend.title} into options",
        name=f"parse_{backend.type}_command",
        description="Nothing is run. The answer is fit for creating an instance.",
        request=CommandSerializer,
        requests={backend.title: {"command": command}},
        answer=ParsedCommandSerializer,
        answers={backend.title: answer},
        errors=[
            EmptyCommand(),
            CommandSyntaxError('unterminated quoted string: a " is never closed'),
            InvalidRequest("Invalid request body: command must be a string"),
        ],
        uses_database=False,
    )
