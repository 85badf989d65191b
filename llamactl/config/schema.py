"""What may be configured: every key, its type, its default and what it allows.

Attribute names are the seed's YAML keys with ``-`` replaced by ``_``. Values arrive mostly as text
(from the environment, and from YAML, see ``sources``), so the types here also say how text is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from llamactl.config.problems import FieldPath, Origins, origin_of

LARGEST_INT = 2**31 - 1
YEAR_SECONDS = 366 * 24 * 3600
DATA_DIR_MARK = "{data_dir}"
"""Stands for the data directory in the docker arguments that we default to."""


class ExpandsHome:
    """Marks a field in which a leading ``~/`` means the home directory."""


def allowed(rule: str) -> WrapValidator:
    """Say any failure of a type as "must be ``rule``": one sentence, whatever went wrong inside."""

    def check(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except (ValidationError, ValueError, ArithmeticError) as error:
            raise PydanticCustomError("not_allowed", "must be {rule}", {"rule": rule}) from error

    return WrapValidator(check)


# -- reading text ---------------------------------------------------------------------------------


def split_commas(value: object) -> object:
    """``"a, b"`` -> ``["a", "b"]``; blanks around items and empty items are dropped."""
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, list):
        stripped = [item.strip() if isinstance(item, str) else item for item in items]
        return [item for item in stripped if item != ""]
    return items


def split_blanks(value: object) -> object:
    """``"run --rm"`` -> ``["run", "--rm"]``. No quoting, as in the seed; YAML lists can have it."""
    return value.split() if isinstance(value, str) else value


def parse_pairs(value: object, *, separator: str = ",") -> object:
    """``"A=1,B=2"`` -> ``{"A": "1", "B": "2"}``; a piece without ``=`` continues the value before.

    So ``CUDA_VISIBLE_DEVICES=0,1`` is one variable. Raises ValueError when the first piece has no
    ``=``; anything but text is returned as it is.
    """
    if not isinstance(value, str):
        return value
    pairs: dict[str, str] = {}
    name = ""
    for piece in value.split(separator):
        key, equals, text = piece.strip().partition("=")
        if equals:
            name = key.strip()
            pairs[name] = text
        elif name:
            pairs[name] += separator + piece
        elif piece.strip():
            raise ValueError(f"no = in {len(piece)} characters")
    return pairs


def parse_header_pairs(value: object) -> object:
    """``"X-A=1;X-B=2"`` -> ``{"X-A": "1", "X-B": "2"}``: header values may have commas."""
    return parse_pairs(value, separator=";")


def parse_port_range(value: object) -> object:
    """``"8000-9000"`` or ``"8000,9000"``, blanks allowed -> ``["8000", "9000"]``."""
    if isinstance(value, str):
        return re.split(r"\s*[-,]\s*", value.strip())
    return value


_DURATION_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_DURATION_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"  # Go takes both mu signs


def refuse_bool(value: object) -> object:
    """pydantic takes True for 1 where a number is asked for; nobody means that."""
    if isinstance(value, bool):
        raise ValueError("a bool")
    return value


def parse_duration(value: object) -> object:
    """Go's durations (``1h30m``, ``500ms``) in seconds; a bare number is seconds already.

    A bare number of 1e9 or more is what GET /api/v1/config shows: nanoseconds.
    """
    refuse_bool(value)
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(f"({_DURATION_PART})+", text, re.ASCII):
            parts = re.findall(_DURATION_PART, text, re.ASCII)
            return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
        value = float(text)
    if isinstance(value, (int, float)) and value >= 1e9:
        return value / 1e9
    return value


def parse_optional(value: object) -> object:
    """Empty text (``${REDIS_URL:-}``) means unset."""
    return None if isinstance(value, str) and not value.strip() else value


def _null_is_empty(kind: Callable[[], object]) -> BeforeValidator:
    """A key that is written but left empty in YAML is an empty list or mapping."""
    return BeforeValidator(lambda value: kind() if value is None else value)


def _check_environment(pairs: dict[str, str]) -> dict[str, str]:
    if any(not name or "=" in name for name in pairs):
        raise ValueError("a bad name")
    return pairs


def _check_headers(pairs: dict[str, str]) -> dict[str, str]:
    for name, text in pairs.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError("a bad name")
        # Line breaks would start a header of their own; http has Latin-1 and no control characters.
        if re.search(r"[^\t\x20-\x7e\xa0-\xff]", text):
            raise ValueError("a bad value")
    return pairs


def _check_url(*schemes: str) -> AfterValidator:
    def check(url: SecretStr | None) -> SecretStr | None:
        if url is not None and urlsplit(url.get_secret_value()).scheme not in schemes:
            raise ValueError("another scheme")
        return url

    return AfterValidator(check)


def _check_address(address: str) -> str:
    parts = urlsplit(address)
    if address and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError("no URL")
    if not address.isprintable() or " " in address:  # urlsplit drops line breaks silently
        raise ValueError("no URL")
    if parts.port == 0:  # .port itself raises ValueError for one that is no number
        raise ValueError("no port")
    return address.rstrip("/")


def _check_port_range(ports: tuple[int, int]) -> tuple[int, int]:
    if ports[0] >= ports[1]:
        raise ValueError("start is not below end")
    return ports


# -- types ----------------------------------------------------------------------------------------

Text = Annotated[str, Field(min_length=1), allowed("a text that is not empty")]
NAME_PATTERN = r"^[^\s/\x00-\x1f\x7f]{1,100}$"
Name = Annotated[
    str,
    Field(pattern=NAME_PATTERN),
    allowed("1 to 100 characters without blanks and slashes"),
]
Switch = Annotated[bool, allowed("true or false")]
Int = Annotated[int, BeforeValidator(refuse_bool)]
Port = Annotated[Int, Field(ge=1, le=65535), allowed("a port number from 1 to 65535")]
PortRange = Annotated[
    tuple[Port, Port],
    BeforeValidator(parse_port_range),
    AfterValidator(_check_port_range),
    allowed("two ports from 1 to 65535, the first below the second, such as [8000, 9000]"),
]
Limit = Annotated[
    Int, Field(ge=-1, le=LARGEST_INT), allowed("a whole number from 0, or -1 for no limit")
]
Count = Annotated[Int, Field(ge=0, le=LARGEST_INT), allowed("a whole number from 0")]
PositiveInt = Annotated[Int, Field(ge=1, le=LARGEST_INT), allowed("a whole number from 1")]
Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0, le=YEAR_SECONDS, allow_inf_nan=False),
    allowed("a duration above 0 (seconds, or such as 90s, 5m, 1h30m) and at most 366 days"),
]
SecondsOrZero = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0, le=YEAR_SECONDS, allow_inf_nan=False),
    allowed("a duration from 0 (seconds, or such as 90s, 5m, 1h30m) to 366 days"),
]
HomePath = Annotated[Path, ExpandsHome, allowed("a path")]
OptionalHomePath = Annotated[Path | None, ExpandsHome, allowed("a path")]
CommaList = Annotated[
    list[str],
    _null_is_empty(list),
    BeforeValidator(split_commas),
    allowed("a list of texts, or one text with commas between them"),
]
KeyList = Annotated[
    list[SecretStr],
    _null_is_empty(list),
    BeforeValidator(split_commas),
    allowed("a list of keys, or one text with commas between them"),
]
Words = Annotated[
    list[str],
    _null_is_empty(list),
    BeforeValidator(split_blanks),
    Field(repr=False),  # "--api-key …" is no name that Django's error pages know to hide
    allowed("a list of texts, or one text with blanks between them"),
]
Environment = Annotated[
    dict[str, str],
    _null_is_empty(dict),
    BeforeValidator(parse_pairs),
    AfterValidator(_check_environment),
    Field(repr=False),  # HF_TOKEN and the like
    allowed("a mapping of names to texts, or NAME=text pairs with commas between them"),
]
Headers = Annotated[
    dict[str, str],
    _null_is_empty(dict),
    BeforeValidator(parse_header_pairs),
    AfterValidator(_check_headers),
    allowed(
        "a mapping of header names to texts without line breaks, "
        "or Name=text pairs with semicolons between them"
    ),
]
DatabaseUrl = Annotated[
    SecretStr | None,
    BeforeValidator(parse_optional),
    _check_url("postgres", "postgresql"),
    allowed("a postgres:// URL (an SQLite file is named by database.path)"),
]
RedisUrl = Annotated[
    SecretStr | None,
    BeforeValidator(parse_optional),
    _check_url("redis", "rediss", "unix"),
    allowed("a redis://, rediss:// or unix:// URL"),
]
Secret = Annotated[SecretStr | None, BeforeValidator(parse_optional), allowed("a text")]
Address = Annotated[
    str,
    AfterValidator(_check_address),
    allowed("a URL that begins with http:// or https://, or empty for the local node"),
]


# -- sections -------------------------------------------------------------------------------------


class Section(BaseModel):
    """A mapping of the file. Unknown keys are reported by ``sources``, so they are ignored here."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", validate_default=True, hide_input_in_errors=True
    )

    other_names: ClassVar[Mapping[str, str]] = {}
    """Keys under which the file may name a field: written key -> field."""
    ignored_keys: ClassVar[Mapping[str, str]] = {}
    """Keys that a Go program knows and that do nothing here: key -> why."""


class ServerConfig(Section):
    """Where the web processes listen and what they let through."""

    host: Text = "127.0.0.1"
    port: Port = 8080
    allowed_origins: CommaList = ["*"]
    allowed_headers: CommaList = ["*"]
    enable_swagger: Switch = True
    response_headers: Headers = {}
    web_processes: PositiveInt = 1
    max_body_mib: PositiveInt = 64
    upstream_first_byte_timeout: SecondsOrZero = 0
    """From a request to the first byte of a backend's answer; 0: for ever. A long prompt, and an
    answer that is not streamed, take minutes without a byte."""
    upstream_idle_timeout: SecondsOrZero = 600
    """Between two pieces of a backend's answer; 0: for ever."""


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
    group_limits: Annotated[dict[str, Limit], _null_is_empty(dict)] = {}
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
    """Minutes; accepted for the seed's files. Idleness is looked at all the time."""
    log_rotation_enabled: Switch = True
    log_rotation_max_size: PositiveInt = 100
    """MB."""
    log_rotation_compress: Switch = False
    log_rotation_backups: PositiveInt = 3
    """How many rotated files are kept of a log."""
    start_timeout: Seconds = 1800.0
    drain_timeout: SecondsOrZero = 30.0
    stop_timeout: Seconds = 10.0
    """Seconds for each of SIGINT and SIGTERM, before the next signal."""
    swap_after: SecondsOrZero = 10.0
    """How long requests wait for a busy instance to have a pause before it has to make room."""
    loads_at_boot: PositiveInt = 1
    """How many instances load at the same time after the host was started."""
    unhealthy_timeout: SecondsOrZero = 60.0
    """How long a running backend may not answer before it counts as crashed; 0 is for ever."""
    orphan_grace: SecondsOrZero = 600.0
    """Seconds without a worker after which a guard ends the backends; 0: they live on."""
    keep_backends: Switch = True

    # The later Go program's name for the directory.
    other_names = {"instances_dir": "configs_dir"}


class DatabaseConfig(Section):
    """SQLite at ``path``, or PostgreSQL at ``url``."""

    path: HomePath = Path("llamactl.db")
    """Absolute once loaded; a relative one is below ``data_dir``."""
    url: DatabaseUrl = None
    max_open_connections: Limit = 25
    max_idle_connections: Limit = 5
    connection_max_lifetime: SecondsOrZero = 300.0
    """Seconds; 0 is for ever, as in Go's database/sql."""


class RedisConfig(Section):
    """Broker, channel layer and events; without a URL, our own Valkey in the data directory."""

    url: RedisUrl = None


class AuthConfig(Section):
    """Who must show a key, and the keys that are not in the database."""

    require_inference_auth: Switch = True
    inference_keys: KeyList = []
    require_management_auth: Switch = True
    management_keys: KeyList = []

    ignored_keys = {"oidc": "login by OpenID Connect is not supported"}


class DockerConfig(Section):
    """How a backend is run in a container."""

    enabled: Switch = False
    image: Text
    args: Words = []
    environment: Environment = {}


class LlamaCppDocker(DockerConfig):
    """llama.cpp's image, with its model cache in the data directory."""

    image: Text = "ghcr.io/ggml-org/llama.cpp:server"
    args: Words = [
        *("run", "--rm", "--network", "host", "--gpus", "all"),
        *("-v", f"{DATA_DIR_MARK}/llama.cpp:/root/.cache/llama.cpp"),
    ]


class VllmDocker(DockerConfig):
    """vLLM's image, with its model cache in the data directory."""

    image: Text = "vllm/vllm-openai:latest"
    args: Words = [
        *("run", "--rm", "--network", "host", "--gpus", "all", "--shm-size", "1g"),
        *("-v", f"{DATA_DIR_MARK}/huggingface:/root/.cache/huggingface"),
    ]


class BackendConfig(Section):
    """The program behind a backend type and what each of its processes is given."""

    command: Annotated[Text, ExpandsHome]
    args: Words = []
    environment: Environment = {}
    response_headers: Headers = {}
    docker: DockerConfig | None = None

    ignored_keys = {
        "health_path": "the path is known for each backend",
        "download_timeout": "models are downloaded by the backend itself",
    }


class LlamaCppConfig(BackendConfig):
    """llama-server."""

    command: Annotated[Text, ExpandsHome] = "llama-server"
    docker: LlamaCppDocker | None = LlamaCppDocker()
    cache_dir: OptionalHomePath = None
    """Becomes LLAMA_CACHE in ``environment``, unless that is set there."""


class VllmConfig(BackendConfig):
    """vLLM; its subcommand is an argument like any other."""

    command: Annotated[Text, ExpandsHome] = "vllm"
    args: Words = ["serve"]
    docker: VllmDocker | None = VllmDocker()


class MlxConfig(BackendConfig):
    """mlx_lm.server: Apple's GPUs are out of reach of containers, so ``docker`` is always None."""

    command: Annotated[Text, ExpandsHome] = "mlx_lm.server"

    ignored_keys = {**BackendConfig.ignored_keys, "docker": "MLX does not run in a container"}


class BackendsConfig(Section):
    """One section for each backend type."""

    llama_cpp: LlamaCppConfig = Field(default=LlamaCppConfig(), serialization_alias="llama-cpp")
    vllm: VllmConfig = VllmConfig()
    mlx: MlxConfig = MlxConfig()

    other_names = {"llama-cpp": "llama_cpp"}
    ignored_keys = {"custom": "backends are added in code (instances/backends)"}


class NodeConfig(Section):
    """Another llamactl; the local node is listed with an empty address."""

    address: Address = ""
    api_key: Secret = None


class AppConfig(BaseSettings):
    """The whole configuration. ``load()`` builds it; ``AppConfig(...)`` alone reads nothing."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", validate_default=True, hide_input_in_errors=True
    )

    other_names: ClassVar[Mapping[str, str]] = {}
    ignored_keys: ClassVar[Mapping[str, str]] = {}

    # Order matters: the validators below look at the fields above them.
    data_dir: HomePath = Field(default_factory=lambda: Path.home() / ".local/share/llamactl")
    local_node: Name = "main"
    server: ServerConfig = ServerConfig()
    instances: InstancesConfig = InstancesConfig()
    database: DatabaseConfig = DatabaseConfig()
    redis: RedisConfig = RedisConfig()
    auth: AuthConfig = AuthConfig()
    backends: BackendsConfig = BackendsConfig()
    nodes: Annotated[dict[Name, NodeConfig], _null_is_empty(dict)] = {}

    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _origins: Origins = PrivateAttr(default_factory=dict)

    @property
    def config_warnings(self) -> tuple[str, ...]:
        """What the operator should know though it stops nothing: one line each, no secrets."""
        return self._warnings

    def origin(self, path: FieldPath) -> str:
        """Where the value at ``path`` came from; ``default`` when nobody set it."""
        return origin_of(path, self._origins)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed: ``sources`` brings its own, which know the seed's names."""
        return (init_settings,)

    @field_validator("data_dir", mode="after")
    @classmethod
    def _make_absolute(cls, data_dir: Path) -> Path:
        return data_dir.absolute()

    @field_validator("instances", mode="after")
    @classmethod
    def _place_instances(cls, instances: InstancesConfig, info: ValidationInfo) -> InstancesConfig:
        # data_dir is missing from info.data when it was refused itself; that error is enough.
        data_dir = info.data.get("data_dir", Path())
        return instances.model_copy(
            update={
                "configs_dir": data_dir / instances.configs_dir,
                "logs_dir": data_dir / instances.logs_dir,
            }
        )

    @field_validator("database", mode="after")
    @classmethod
    def _place_database(cls, database: DatabaseConfig, info: ValidationInfo) -> DatabaseConfig:
        path = info.data.get("data_dir", Path()) / database.path
        return database.model_copy(update={"path": path})

    @field_validator("backends", mode="after")
    @classmethod
    def _place_caches(cls, backends: BackendsConfig, info: ValidationInfo) -> BackendsConfig:
        data_dir = info.data.get("data_dir", Path())
        llama_cpp, vllm = backends.llama_cpp, backends.vllm
        environment = llama_cpp.environment
        if llama_cpp.cache_dir is not None:
            environment = {"LLAMA_CACHE": str(data_dir / llama_cpp.cache_dir), **environment}
        return backends.model_copy(
            update={
                "llama_cpp": llama_cpp.model_copy(
                    update={
                        "environment": environment,
                        "docker": _place_volumes(llama_cpp.docker, data_dir),
                    }
                ),
                "vllm": vllm.model_copy(update={"docker": _place_volumes(vllm.docker, data_dir)}),
            }
        )

    @field_validator("nodes", mode="after")
    @classmethod
    def _list_local_node(
        cls, nodes: dict[str, NodeConfig], info: ValidationInfo
    ) -> dict[str, NodeConfig]:
        return {info.data.get("local_node", "main"): NodeConfig(), **nodes}


def _place_volumes(docker: DockerConfig | None, data_dir: Path) -> DockerConfig | None:
    """Put the data directory into docker arguments that nobody set."""
    if docker is None or "args" in docker.model_fields_set:
        return docker
    args = [arg.replace(DATA_DIR_MARK, str(data_dir)) for arg in docker.args]
    return docker.model_copy(update={"args": args})
