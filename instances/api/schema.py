"""What the OpenAPI document says about the instances' operations and the backends' tools."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiParameter

from instances.api.serializers import (
    CommandSerializer,
    InstanceSerializer,
    OptionsSerializer,
    ParsedCommandSerializer,
)
from llamactl.openapi import PLAIN_TEXT, operation

_INSTANCES = "Instances"
_BACKENDS = "Backends"
_WAIT = OpenApiParameter(
    "wait",
    float,
    description="Answer only when it is ready to be used, or failed, or after this many seconds"
    " (at most instances.on_demand_start_timeout). Without it the answer comes at once.",
)
_LINES = OpenApiParameter("lines", int, description="Only the last so many lines; 0 for all.")

list_instances = operation(
    _INSTANCES, "List the instances by name", answer=InstanceSerializer(many=True)
)
create_instance = operation(
    _INSTANCES,
    "Create an instance",
    description="It is stopped at first. Options that are left out get their defaults, and the"
    " port is chosen if none is said.",
    request=OptionsSerializer,
    status=201,
    answer=InstanceSerializer,
    errors=[400, 409],
)
show_instance = operation(
    _INSTANCES, "Show an instance", answer=InstanceSerializer, errors=[400, 404]
)
replace_options = operation(
    _INSTANCES,
    "Replace the options of an instance",
    description="Options that are left out get their defaults again; the node stays, and so does a"
    " port that is left out. A running instance is restarted.",
    request=OptionsSerializer,
    answer=InstanceSerializer,
    errors=[400, 404, 409],
)
delete_instance = operation(
    _INSTANCES,
    "Delete a stopped instance",
    description="Its log file stays.",
    status=204,
    errors=[400, 404, 409],
)
start_instance = operation(
    _INSTANCES,
    "Start an instance",
    description="One that runs is left alone. Where the limits leave no room it waits for some, see"
    " `queue`; where none can ever be made, the answer is 409.",
    parameters=[_WAIT],
    answer=InstanceSerializer,
    errors=[400, 404, 409, 502, 503],
)
stop_instance = operation(
    _INSTANCES,
    "Stop an instance",
    description="Ends a start that is under way, too. Requests in flight are waited for.",
    answer=InstanceSerializer,
    errors=[400, 404],
)
restart_instance = operation(
    _INSTANCES,
    "Restart an instance",
    description="It gets a new process, whether or not one runs now. One that runs keeps its room.",
    parameters=[_WAIT],
    answer=InstanceSerializer,
    errors=[400, 404, 409, 502, 503],
)
read_log = operation(
    _INSTANCES,
    "Read the log of an instance",
    description="Empty before the first start.",
    parameters=[_LINES],
    answer=str,
    media_type=PLAIN_TEXT,
    errors=[400, 404, 500],
)

show_help = operation(
    _BACKENDS,
    "The help text of the llama-server program",
    answer=str,
    media_type=PLAIN_TEXT,
    errors=[500],
)
show_version = operation(
    _BACKENDS,
    "The version of the llama-server program",
    answer=str,
    media_type=PLAIN_TEXT,
    errors=[500],
)
list_devices = operation(
    _BACKENDS,
    "The devices that the llama-server program can use",
    answer=str,
    media_type=PLAIN_TEXT,
    errors=[500],
)
parse_command = operation(
    _BACKENDS,
    "Turn a command line into options",
    request=CommandSerializer,
    answer=ParsedCommandSerializer,
    errors=[400],
)
