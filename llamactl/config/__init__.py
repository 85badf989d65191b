"""The configuration: ``load()`` builds it once, ``current()`` returns it afterwards."""

from __future__ import annotations

from django.conf import settings

from llamactl.config.app_config import AppConfig
from llamactl.config.problems import ConfigError
from llamactl.config.schema import (
    AuthConfig,
    BackendConfig,
    BackendsConfig,
    DatabaseConfig,
    DockerConfig,
    InstancesConfig,
    NodeConfig,
    RedisConfig,
    ServerConfig,
)
from llamactl.config.sources import load

__all__ = [
    "AppConfig",
    "AuthConfig",
    "BackendConfig",
    "BackendsConfig",
    "ConfigError",
    "DatabaseConfig",
    "DockerConfig",
    "InstancesConfig",
    "NodeConfig",
    "RedisConfig",
    "ServerConfig",
    "current",
    "load",
]


def current() -> AppConfig:
    """Return the configuration of this process, from Django's settings."""
    config: AppConfig = settings.LLAMACTL
    return config
