"""Sections of the configuration: every key with its type, default and rule.

Attribute names are the seed's YAML keys with ``-`` replaced by ``_``. Values arrive mostly as text
(see ``layers``); the types of ``types`` parse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from llamactl.config.types import (
    Address,
    CommaList,
    Count,
    DatabaseUrl,
    Environment,
    ExpandsHome,
    Headers,
    HomePath,
    KeyList,
    Limit,
    NextPort,
    Port,
    PortRange,
    PositiveInt,
    PublicUrl,
    RedisUrl,
    Seconds,
    SecondsOrZero,
    Secret,
    Switch,
    Text,
    Words,
    null_is_empty,
)

DATA_DIR_MARK = "{data_dir}"
"""Placeholder of the data directory in default docker arguments."""


class Section(BaseModel):
    """A mapping of the file. ``file_reader`` warns of unknown keys, so they are ignored here."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", validate_default=True, hide_input_in_errors=True
    )

    other_names: ClassVar[Mapping[str, str]] = {}
    """Aliases in the file: key → field."""
    ignored_keys: ClassVar[Mapping[str, str]] = {}
    """Keys of the Go program without effect here: key → reason."""


class ServerConfig(Section):
    """Address, limits and timeouts of the web processes."""

    host: Text = "127.0.0.1"
    port: Port = 8080
    public_url: PublicUrl = ""
    """URL at which a reverse proxy serves llamactl, also below a path; empty without a proxy."""
    backend_ui_port: NextPort = None
    """Port of the backends' own pages (see ``ui_port``); 0: none, all pages are in a sandbox."""
    backend_ui_url: PublicUrl = ""
    """URL at which a reverse proxy serves that port."""
    allowed_origins: CommaList = ["*"]
    allowed_headers: CommaList = ["*"]
    enable_swagger: Switch = True
    response_headers: Headers = {}
    web_processes: PositiveInt = 1
    max_body_mib: PositiveInt = 64
    upstream_first_byte_timeout: SecondsOrZero = 0
    """Seconds to the first byte of a backend's answer; 0 is no limit. A long prompt, and an answer
    that is not streamed, take minutes without a byte."""
    keepalive_after: SecondsOrZero = 10
    """Seconds after which a waiting request for an event stream gets its head and comments; 0 is
    never."""
    upstream_idle_timeout: SecondsOrZero = 600
    """Seconds between two pieces of a backend's answer; 0 is no limit."""

    @field_validator("backend_ui_port", mode="after")
    @classmethod
    def _have_own_port(cls, port: int | None, info: ValidationInfo) -> int | None:
        if port is not None and port == info.data.get("port"):
            raise PydanticCustomError(
                "own_port", "must be another port than server.port, or 0 for none"
            )
        return port

    @field_validator("backend_ui_url", mode="after")
    @classmethod
    def _have_own_origin(cls, url: str, info: ValidationInfo) -> str:
        if url and origin_of_url(url) == origin_of_url(info.data.get("public_url", "")):
            raise PydanticCustomError(
                "own_origin",
                "must have another host name or port than server.public_url, or the backends' pages"
                " can act as llamactl's own",
            )
        return url

    @property
    def ui_port(self) -> int:
        """``backend_ui_port``, by default the port after ``port``; 0: none."""
        if self.backend_ui_port is not None:
            return self.backend_ui_port
        return (self.port + 1) % 65536

    @property
    def public_origin(self) -> str:
        """Scheme, host and port of ``public_url``, as a browser's ``Origin``; empty without one."""
        return origin_of_url(self.public_url)

    @property
    def backend_ui_origin(self) -> str:
        """Scheme, host and port of ``backend_ui_url``; empty without one."""
        return origin_of_url(self.backend_ui_url)

    @property
    def public_prefix(self) -> str:
        """Path of ``public_url`` without the slash at its end: ``/llm``, or empty."""
        return urlsplit(self.public_url).path

    @property
    def is_public_by_https(self) -> bool:
        """Whether browsers reach llamactl by ``https``."""
        return self.public_url.startswith("https:")


class InstancesConfig(Section):
    """Limits of this node, and defaults of new instances."""

    port_range: PortRange = (8000, 9000)
    configs_dir: HomePath = Path("instances")
    """Absolute once loaded; a relative one is below ``data_dir``. So is ``logs_dir``."""
    logs_dir: HomePath = Path("logs")
    auto_create_dirs: Switch = True
    max_instances: Limit = -1
    max_running_instances: Limit = -1
    enable_lru_eviction: Switch = True
    group_limits: Annotated[dict[str, Limit], null_is_empty(dict)] = {}
    default_auto_restart: Switch = True
    default_max_restarts: Count = 3
    default_restart_delay: Count = 5
    """Seconds."""
    default_on_demand_start: Switch = True
    default_idle_timeout: Count = 0
    """Minutes; 0 is never."""
    on_demand_start_timeout: PositiveInt = 120
    """Seconds."""
    timeout_check_interval: PositiveInt = 5
    """Minutes; accepted for the seed's files, without effect: idleness is checked continuously."""
    log_rotation_enabled: Switch = True
    log_rotation_max_size: PositiveInt = 100
    """MB."""
    log_rotation_compress: Switch = False
    log_rotation_backups: PositiveInt = 3
    """Number of rotated files to keep of each log."""
    start_timeout: Seconds = 1800.0
    drain_timeout: SecondsOrZero = 30.0
    stop_timeout: Seconds = 10.0
    """Seconds after SIGINT, and again after SIGTERM, until the next signal."""
    operator_stop_hold: SecondsOrZero = 30.0
    """Seconds in which no request undoes an operator's stop."""
    swap_after: SecondsOrZero = 10.0
    """Seconds that queued requests wait for a busy instance to pause before it is preempted."""
    loads_at_boot: PositiveInt = 1
    """Number of instances that load at the same time after the host booted."""
    unhealthy_timeout: SecondsOrZero = 60.0
    """Seconds without an answer to the liveness probe until a backend counts as crashed; 0 is
    never."""
    orphan_grace: SecondsOrZero = 600.0
    """Seconds without a worker until the guard ends the orphaned backends; 0 is never."""
    keep_backends: Switch = True
    check_listener: Switch = True
    """Whether a backend's port must be listened on by the backend's own processes. A wrapper that
    lets another program listen (``ssh -L``, podman, systemd-run) needs ``false``."""

    # The later Go program's name for the directory.
    other_names = {"instances_dir": "configs_dir"}


class DatabaseConfig(Section):
    """SQLite at ``path``, or PostgreSQL at ``url``."""

    path: HomePath = Path("llamactl.db")
    """Absolute once loaded; a relative one is below ``data_dir``. Beside a file of the Go program:
    see ``database_file``."""
    url: DatabaseUrl = None
    max_open_connections: Limit = 25
    max_idle_connections: Limit = 5
    connection_max_lifetime: SecondsOrZero = 300.0
    """Seconds; 0 is no limit, as in Go's database/sql."""


class RedisConfig(Section):
    """Broker, channel layer and events; without a URL, the embedded Valkey."""

    url: RedisUrl = None


class AuthConfig(Section):
    """Requests that need a key, and the keys outside the database."""

    require_inference_auth: Switch = True
    inference_keys: KeyList = []
    require_management_auth: Switch = True
    management_keys: KeyList = []

    ignored_keys = {"oidc": "login by OpenID Connect is not supported"}


class RequestsConfig(Section):
    """The list of the last requests."""

    keep: Count = 10_000
    """Number of requests; 0 keeps none."""


class UsageConfig(Section):
    """Sums of each key and instance."""

    retention_days: PositiveInt = 400
    """Days that sums of days are kept; sums of hours are kept for 31."""


class DockerConfig(Section):
    """The container in which a backend runs."""

    enabled: Switch = False
    image: Text
    args: Words = []
    environment: Environment = {}


class BackendConfig(Section):
    """The program of a backend type and the settings of its processes.

    Each backend has a subclass in its own folder, with its defaults and with any key of its own.
    """

    ignored_variables: ClassVar[Mapping[str, str]] = {}
    """Variables of the Go program without effect here: name → reason."""

    command: Annotated[Text, ExpandsHome]
    args: Words = []
    environment: Environment = {}
    response_headers: Headers = {}
    docker: DockerConfig | None = None

    ignored_keys = {
        "health_path": "each backend has a fixed path",
        "download_timeout": "models are downloaded by the backend itself",
    }

    def placed_in(self, data_dir: Path) -> Self:
        """Return the section with ``{data_dir}`` replaced in default docker arguments."""
        docker = self.docker
        if docker is None or "args" in docker.model_fields_set:
            return self
        args = [arg.replace(DATA_DIR_MARK, str(data_dir)) for arg in docker.args]
        return self.model_copy(update={"docker": docker.model_copy(update={"args": args})})


BackendSection = type[BackendConfig]

BackendSections = Mapping[str, BackendSection]
"""Key of the file → section of the backends' registry: ``{"llama-cpp": LlamaCppConfig}``."""


class BackendsConfig(Section):
    """The sections of all backends. ``config_model`` adds a field for each registered backend."""

    ignored_keys = {"custom": "backends are added in code (instances/backends)"}

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> BackendConfig: ...


class NodeConfig(Section):
    """Another llamactl; the local node is listed with an empty address."""

    address: Address = ""
    api_key: Secret = None


def origin_of_url(url: str) -> str:
    """``https://llm.example/llm`` → ``https://llm.example``."""
    return "/".join(url.split("/")[:3])


def backend_field(key: str) -> str:
    """Return the field of ``BackendsConfig`` for a key of the file: ``llama_cpp``."""
    return key.replace("-", "_")


def backend_key(field: str) -> str:
    """Return the key of the file for a field of ``BackendsConfig``: ``llama-cpp``."""
    return field.replace("_", "-")
