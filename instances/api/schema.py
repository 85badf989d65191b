"""What the OpenAPI document says about the instances' operations and the backends' tools."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, PolymorphicProxySerializer

from instances.api.serializers import (
    CommandSerializer,
    InstanceSerializer,
    OptionsSerializer,
    ParsedCommandSerializer,
    RehearsalSerializer,
    SavedInstanceSerializer,
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
_DRY_RUN_EXAMPLE = OpenApiExample(
    "A dry run",
    response_only=True,
    status_codes=["200"],
    value={
        "command": [
            *("/usr/local/bin/llama-server", "--model", "/models/gemma.gguf"),
            *("--alias", "gemma", "--host", "127.0.0.1", "--port", "8000", "--ctx-sise", "8192"),
        ],
        "command_line": "CUDA_VISIBLE_DEVICES=0 /usr/local/bin/llama-server --model"
        " /models/gemma.gguf --alias gemma --host 127.0.0.1 --port 8000 --ctx-sise 8192",
        "environment": {"CUDA_VISIBLE_DEVICES": "0", "LLAMA_API_KEY": "***"},
        "working_directory": "/home/me/.local/share/llamactl",
        "options": {
            "backend_type": "llama_cpp",
            "backend_options": {
                "model": "/models/gemma.gguf",
                "extra_args": {"ctx_sise": "8192"},
                "port": 8000,
            },
            "nodes": ["main"],
            "auto_restart": True,
            "max_restarts": 3,
            "restart_delay": 5,
            "on_demand_start": True,
            "idle_timeout": 0,
            "environment": {"CUDA_VISIBLE_DEVICES": "0"},
        },
        "errors": [
            {
                "field": "backend_options.model",
                "severity": "error",
                "message": "'/models/gemma.gguf' does not exist",
                "suggestion": "did you mean '/models/gemma-3.gguf'?",
            }
        ],
        "warnings": [
            {
                "field": "backend_options.extra_args.ctx_sise",
                "severity": "warning",
                "message": "--ctx-sise is not in the help of '/usr/local/bin/llama-server'",
                "suggestion": "did you mean --ctx-size?",
            }
        ],
    },
)

list_instances = operation(
    _INSTANCES, "List the instances by name", answer=InstanceSerializer(many=True)
)
create_instance = operation(
    _INSTANCES,
    "Create an instance",
    description="It is stopped at first. Options that are left out get their defaults, and the"
    " port is chosen if none is said.",
    request=OptionsSerializer,
    parameters=[_DRY_RUN, _STRICT],
    status=201,
    answer=SavedInstanceSerializer,
    others={200: RehearsalSerializer},
    examples=[_DRY_RUN_EXAMPLE],
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
    parameters=[_DRY_RUN, _STRICT],
    answer=PolymorphicProxySerializer(
        "SavedInstanceOrRehearsal",
        [SavedInstanceSerializer, RehearsalSerializer],
        resource_type_field_name=None,
    ),
    examples=[_DRY_RUN_EXAMPLE],
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
    description="One that runs is left alone.",
    parameters=[_WAIT],
    answer=InstanceSerializer,
    errors=[400, 404, 502, 503],
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
    description="It gets a new process, whether or not one runs now.",
    parameters=[_WAIT],
    answer=InstanceSerializer,
    errors=[400, 404, 502, 503],
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
