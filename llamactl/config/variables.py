"""Environment variables of the configuration, and the key that each sets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamactl.config.schema import BackendSection, BackendSections, backend_field

CONFIG_PATH_VARIABLE = "LLAMACTL_CONFIG_PATH"

ANNOUNCED_VARIABLE = "LLAMACTL_WARNINGS_ANNOUNCED"
"""Set by llamactl for its child processes once the warnings are printed."""


VARIABLES: dict[str, str] = {
    "LLAMACTL_HOST": "server.host",
    "LLAMACTL_PORT": "server.port",
    "LLAMACTL_PUBLIC_URL": "server.public_url",
    "LLAMACTL_BACKEND_UI_PORT": "server.backend_ui_port",
    "LLAMACTL_BACKEND_UI_URL": "server.backend_ui_url",
    "LLAMACTL_ALLOWED_ORIGINS": "server.allowed_origins",
    "LLAMACTL_ALLOWED_HEADERS": "server.allowed_headers",
    "LLAMACTL_ENABLE_SWAGGER": "server.enable_swagger",
    "LLAMACTL_RESPONSE_HEADERS": "server.response_headers",
    "LLAMACTL_WEB_PROCESSES": "server.web_processes",
    "LLAMACTL_MAX_BODY_MIB": "server.max_body_mib",
    "LLAMACTL_UPSTREAM_FIRST_BYTE_TIMEOUT": "server.upstream_first_byte_timeout",
    "LLAMACTL_UPSTREAM_IDLE_TIMEOUT": "server.upstream_idle_timeout",
    "LLAMACTL_KEEPALIVE_AFTER": "server.keepalive_after",
    # The seed's compose file sets DATA_DIR, which the seed never read. The later entry wins.
    "LLAMACTL_DATA_DIR": "data_dir",
    "LLAMACTL_DATA_DIRECTORY": "data_dir",
    "LLAMACTL_INSTANCE_PORT_RANGE": "instances.port_range",
    "LLAMACTL_INSTANCES_DIR": "instances.configs_dir",
    "LLAMACTL_LOGS_DIR": "instances.logs_dir",
    "LLAMACTL_AUTO_CREATE_DATA_DIR": "instances.auto_create_dirs",
    "LLAMACTL_MAX_INSTANCES": "instances.max_instances",
    "LLAMACTL_MAX_RUNNING_INSTANCES": "instances.max_running_instances",
    "LLAMACTL_ENABLE_LRU_EVICTION": "instances.enable_lru_eviction",
    "LLAMACTL_GROUP_LIMITS": "instances.group_limits",
    "LLAMACTL_DEFAULT_AUTO_RESTART": "instances.default_auto_restart",
    "LLAMACTL_DEFAULT_MAX_RESTARTS": "instances.default_max_restarts",
    "LLAMACTL_DEFAULT_RESTART_DELAY": "instances.default_restart_delay",
    "LLAMACTL_DEFAULT_ON_DEMAND_START": "instances.default_on_demand_start",
    "LLAMACTL_DEFAULT_IDLE_TIMEOUT": "instances.default_idle_timeout",
    "LLAMACTL_ON_DEMAND_START_TIMEOUT": "instances.on_demand_start_timeout",
    "LLAMACTL_TIMEOUT_CHECK_INTERVAL": "instances.timeout_check_interval",
    "LLAMACTL_LOG_ROTATION_ENABLED": "instances.log_rotation_enabled",
    "LLAMACTL_LOG_ROTATION_MAX_SIZE": "instances.log_rotation_max_size",
    "LLAMACTL_LOG_ROTATION_COMPRESS": "instances.log_rotation_compress",
    "LLAMACTL_LOG_ROTATION_BACKUPS": "instances.log_rotation_backups",
    "LLAMACTL_START_TIMEOUT": "instances.start_timeout",
    "LLAMACTL_DRAIN_TIMEOUT": "instances.drain_timeout",
    "LLAMACTL_OPERATOR_STOP_HOLD": "instances.operator_stop_hold",
    "LLAMACTL_STOP_TIMEOUT": "instances.stop_timeout",
    "LLAMACTL_SWAP_AFTER": "instances.swap_after",
    "LLAMACTL_LOADS_AT_BOOT": "instances.loads_at_boot",
    "LLAMACTL_UNHEALTHY_TIMEOUT": "instances.unhealthy_timeout",
    "LLAMACTL_ORPHAN_GRACE": "instances.orphan_grace",
    "LLAMACTL_KEEP_BACKENDS": "instances.keep_backends",
    "LLAMACTL_CHECK_LISTENER": "instances.check_listener",
    "LLAMACTL_DATABASE_PATH": "database.path",
    "LLAMACTL_DATABASE_URL": "database.url",
    "LLAMACTL_DATABASE_MAX_OPEN_CONNECTIONS": "database.max_open_connections",
    "LLAMACTL_DATABASE_MAX_IDLE_CONNECTIONS": "database.max_idle_connections",
    "LLAMACTL_DATABASE_CONN_MAX_LIFETIME": "database.connection_max_lifetime",
    "LLAMACTL_REDIS_URL": "redis.url",
    "LLAMACTL_REQUIRE_INFERENCE_AUTH": "auth.require_inference_auth",
    "LLAMACTL_INFERENCE_KEYS": "auth.inference_keys",
    "LLAMACTL_REQUIRE_MANAGEMENT_AUTH": "auth.require_management_auth",
    "LLAMACTL_MANAGEMENT_KEYS": "auth.management_keys",
    "LLAMACTL_REQUESTS_KEEP": "requests.keep",
    "LLAMACTL_USAGE_RETENTION_DAYS": "usage.retention_days",
    "LLAMACTL_LOCAL_NODE": "local_node",
}
"""Environment variable → field: the seed's names, later Go versions' names, and ours alike.

``variables_with`` adds the variables of the backends. ``nodes`` has no variable; its ``api_key``
may be written as ``${VARIABLE}`` in the file.
"""


OTHER_VARIABLES: dict[str, str] = {
    CONFIG_PATH_VARIABLE: "",
    ANNOUNCED_VARIABLE: "",
}
"""Known names that set no field → reason for the warning, or ``""`` for no warning."""


# Kubernetes sets these in every pod for a Service called "llamactl". LLAMACTL_PORT is both ours
# and such a variable (tcp://10.0.0.1:8080).
KUBERNETES_NAME = re.compile(r"LLAMACTL_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP)(_\w+)?)")

KUBERNETES_PORT = re.compile(r"(tcp|udp)://")


def variables_with(backends: BackendSections) -> dict[str, str]:
    """Return ``VARIABLES`` and the variables of the backends' sections.

    ``llama-cpp`` gives ``LLAMACTL_LLAMACPP_COMMAND`` and so on, as in the seed.
    """
    variables = dict(VARIABLES)
    for key, section in backends.items():
        prefix = f"LLAMACTL_{key.replace('-', '').upper()}"
        for name, field in _fields(section):
            variables[f"{prefix}_{name}"] = f"backends.{backend_field(key)}.{field}"
    return variables


def other_variables_with(backends: BackendSections) -> dict[str, str]:
    """Return ``OTHER_VARIABLES`` and the ignored variables of the backends' sections."""
    variables = dict(OTHER_VARIABLES)
    for section in backends.values():
        variables |= section.ignored_variables
    return variables


def _fields(section: BackendSection) -> Iterator[tuple[str, str]]:
    """Yield the end of each variable's name, and its field below the section."""
    for field, info in section.model_fields.items():
        if field != "docker":
            yield _variable_name(field), field
        elif info.default is not None:
            for inner in type(info.default).model_fields:
                yield f"DOCKER_{_variable_name(inner)}", f"docker.{inner}"


def _variable_name(field: str) -> str:
    return "ENV" if field == "environment" else field.upper()
