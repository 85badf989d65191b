"""OpenAPI descriptions of the operations on instances and of the backends' tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, PolymorphicProxySerializer

from instances import wait_stopped
from instances.api import examples
from instances.api.options_schema import ReplacedOptions
from instances.api.query_params import MAX_LINES, MAX_WAIT_SECONDS
from instances.api.serializers import (
    CommandSerializer,
    DryRunSerializer,
    InstanceSerializer,
    ParsedCommandSerializer,
    SavedInstanceSerializer,
    UpdatedInstanceSerializer,
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
    InstanceStopping,
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
    description="Name of the instance: letters, digits, `_`, `-` and, not first, `.`",
    examples=[OpenApiExample(examples.NAME, value=examples.NAME)],
)
_WAIT = OpenApiParameter(
    "wait",
    {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
    description="Respond when the instance is ready or has failed, or after this many seconds (at"
    " most instances.on_demand_start_timeout). Default: respond at once.",
)
_WAIT_FOR_STOP = OpenApiParameter(
    "wait",
    {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
    description="Longest wait in seconds for a stop that is under way (at most"
    f" {wait_stopped.MAX_WAIT_SECONDS:g}). Default: {wait_stopped.DEFAULT_WAIT_SECONDS:g}.",
)
_LINES = OpenApiParameter(
    "lines",
    {"type": "integer", "minimum": -MAX_LINES, "maximum": MAX_LINES},
    description="Number of last lines, across rotated files. 0: the whole current file. Default:"
    " 0, with follow 100.",
)
_FOLLOW = OpenApiParameter(
    "follow",
    bool,
    description="Respond with server-sent events: the last lines, then each new line, until the"
    " client disconnects.",
)
_LAST_EVENT_ID = OpenApiParameter(
    "Last-Event-ID",
    str,
    OpenApiParameter.HEADER,
    description="With follow: id of the last received event. Browsers send the header by"
    " themselves when they reconnect.",
)
_DRY_RUN = OpenApiParameter(
    "dry_run",
    bool,
    description="Save nothing; respond 200 with the command that would be started and the findings"
    " of the preflight check.",
)
_STRICT = OpenApiParameter(
    "strict",
    bool,
    description="Respond 400 and save nothing if the preflight check finds an error, such as a"
    " missing model file. Default: save the options, and list the findings as warnings.",
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
    description="A new instance is stopped: start it, or send a request under `/v1`. A missing"
    " option gets its default, a missing port the lowest free port.",
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
    description="A missing option gets its default. The node stays, and so do the backend, its"
    " options and the port where they are missing. A running instance is restarted if the change is"
    " one of its launch: argv, environment, limits, working directory, Docker.",
    parameters=[_NAME, _DRY_RUN, _STRICT],
    request=ReplacedOptions,
    requests=examples.NEW_INSTANCES,
    answer=PolymorphicProxySerializer(
        "UpdatedInstanceOrDryRun",
        [UpdatedInstanceSerializer, DryRunSerializer],
        resource_type_field_name=None,
    ),
    answers={**examples.UPDATED, **examples.DRY_RUN},
    errors=[*_BAD_OPTIONS, *_UNKNOWN],
)
delete_instance = operation(
    _INSTANCES,
    "Delete a stopped instance",
    name="delete_instance",
    description="The log moves to the directory `deleted` below that of the logs.",
    parameters=[_NAME, _WAIT_FOR_STOP],
    status=204,
    errors=[
        *_UNKNOWN,
        InvalidParameter(
            "Invalid wait parameter: 'soon' is no number of seconds from 0 to 1000000000"
        ),
        InstanceStopping(examples.NAME),
        InstanceBusy(
            f"instance with name {examples.NAME} is still running, stop it before deleting"
        ),
    ],
)
start_instance = operation(
    _INSTANCES,
    "Start an instance",
    name="start_instance",
    description="A running instance stays as it is. At the node's limits the start waits for"
    " capacity, see `queue`; the response is 409 if the limits can never allow the start.",
    parameters=[_NAME, _WAIT],
    answer=InstanceSerializer,
    answers=examples.STARTING,
    errors=[*_UNKNOWN, *_START_FAILURES, examples.NO_CAPACITY],
)
stop_instance = operation(
    _INSTANCES,
    "Stop an instance",
    name="stop_instance",
    description="Aborts a start too. The stop waits for requests in flight (bounded). For"
    " `instances.operator_stop_hold` (30 s) no request starts the instance again, see `hold`.",
    parameters=[_NAME],
    answer=InstanceSerializer,
    answers=examples.STOPPED,
    errors=_UNKNOWN,
)
restart_instance = operation(
    _INSTANCES,
    "Restart an instance",
    name="restart_instance",
    description="Starts a new process, for a running or a stopped instance. A running instance"
    " keeps its capacity.",
    parameters=[_NAME, _WAIT],
    answer=InstanceSerializer,
    answers=examples.STARTING,
    errors=[*_UNKNOWN, *_START_FAILURES, examples.NO_CAPACITY],
)
read_log = operation(
    _INSTANCES,
    "Read the log of an instance",
    name="read_instance_log",
    description="Empty before the first start. With Last-Event-ID, a followed log continues after"
    " that event.",
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
    """Document the operation that turns a command line of ``backend``'s program into options."""
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
        description="Nothing is executed. The response is fit for creating an instance.",
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
