"""The whole configuration: its sections, and the keys outside of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr, ValidationInfo, create_model, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from llamactl.config.database_file import own_file
from llamactl.config.problems import FieldPath, Origins, origin_of
from llamactl.config.schema import (
    AuthConfig,
    BackendConfig,
    BackendsConfig,
    BackendSection,
    BackendSections,
    DatabaseConfig,
    InstancesConfig,
    NodeConfig,
    RedisConfig,
    RequestsConfig,
    ServerConfig,
    UsageConfig,
    backend_field,
)
from llamactl.config.types import HomePath, Name, null_is_empty


class AppConfig(BaseSettings):
    """The whole configuration, built by ``load()``. ``AppConfig(...)`` itself reads no source."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", validate_default=True, hide_input_in_errors=True
    )

    other_names: ClassVar[Mapping[str, str]] = {}
    ignored_keys: ClassVar[Mapping[str, str]] = {}

    # Order matters: a validator sees the fields above its own.
    data_dir: HomePath = Field(default_factory=lambda: Path.home() / ".local/share/llamactl")
    local_node: Name = "main"
    server: ServerConfig = ServerConfig()
    instances: InstancesConfig = InstancesConfig()
    database: DatabaseConfig = DatabaseConfig()
    redis: RedisConfig = RedisConfig()
    auth: AuthConfig = AuthConfig()
    usage: UsageConfig = UsageConfig()
    requests: RequestsConfig = RequestsConfig()
    backends: BackendsConfig = BackendsConfig()
    nodes: Annotated[dict[Name, NodeConfig], null_is_empty(dict)] = {}

    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _origins: Origins = PrivateAttr(default_factory=dict)

    @property
    def config_warnings(self) -> tuple[str, ...]:
        """Warnings for the operator: one line each, without secrets."""
        return self._warnings

    def origin(self, path: FieldPath) -> str:
        """Return the origin of the value at ``path``; ``default`` if no source set it."""
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
        """Use the passed sources alone: our layers, which know the seed's names."""
        return (init_settings,)

    @field_validator("data_dir", mode="after")
    @classmethod
    def _make_absolute(cls, data_dir: Path) -> Path:
        return data_dir.absolute()

    @field_validator("instances", mode="after")
    @classmethod
    def _place_instances(cls, instances: InstancesConfig, info: ValidationInfo) -> InstancesConfig:
        # A refused data_dir is missing from info.data; its own error is enough.
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
        return database.model_copy(update={"path": own_file(path)})

    @field_validator("backends", mode="after")
    @classmethod
    def _place_backends(cls, backends: BackendsConfig, info: ValidationInfo) -> BackendsConfig:
        data_dir = info.data.get("data_dir", Path())
        sections: Iterable[tuple[str, BackendConfig]] = backends
        return backends.model_copy(
            update={name: section.placed_in(data_dir) for name, section in sections}
        )

    @field_validator("nodes", mode="after")
    @classmethod
    def _list_local_node(
        cls, nodes: dict[str, NodeConfig], info: ValidationInfo
    ) -> dict[str, NodeConfig]:
        return {info.data.get("local_node", "main"): NodeConfig(), **nodes}


def config_model(sections: BackendSections) -> type[AppConfig]:
    """Build ``AppConfig`` with a section for each backend.

    This package imports no app, so the caller passes the sections of the registry.
    """
    return _config_model(tuple(sections.items()))


@cache
def _config_model(sections: tuple[tuple[str, BackendSection], ...]) -> type[AppConfig]:
    fields: dict[str, Any] = {
        backend_field(key): (section, section.model_validate({})) for key, section in sections
    }
    backends = create_model("BackendsConfig", __base__=BackendsConfig, **fields)
    backends.other_names = {key: backend_field(key) for key, _ in sections}
    return create_model("AppConfig", __base__=AppConfig, backends=(backends, backends()))
