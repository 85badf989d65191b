"""Check of the broker: reachable with the configured password, durable, and not evicting."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from llamactl.config import AppConfig
from llamactl.core.broker_url import broker_urls, socket_path_for
from llamactl.doctor.diagnosis import Diagnosis, note, ok, problem, warning
from llamactl.doctor.processes import lock_holder

SUBJECT = "broker"
TIMEOUT_SECONDS = 2.0
SLOW_MS = 50.0


@dataclass(frozen=True)
class BrokerFacts:
    is_embedded: bool
    error: str = ""
    is_refused: bool = False
    """The broker answers, and rejects the password."""
    missing_socket: str = ""
    """Path of the socket of an embedded broker that runs; empty if the socket exists."""
    process: int | None = None
    """Pid of the process that started the embedded broker which runs."""
    milliseconds: float = 0.0
    info: Mapping[str, object] = field(default_factory=dict)
    unix_time: float | None = None
    """The time by the broker's own clock."""


def collect(config: AppConfig) -> BrokerFacts:
    is_embedded = config.redis.url is None
    client = redis.Redis.from_url(
        broker_urls(config).redis,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()
        began = time.monotonic()
        client.ping()
        milliseconds = (time.monotonic() - began) * 1000
        info = client.info()
        seconds, micros = client.time()
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        return BrokerFacts(is_embedded, str(error), is_refused=True)
    except (redis.RedisError, OSError) as error:
        if is_embedded and not socket_path_for(config).exists():
            holder = lock_holder(config.data_dir.resolve() / "broker" / "lock")
            if holder is not None:
                path = str(socket_path_for(config))
                return BrokerFacts(is_embedded, str(error), missing_socket=path, process=holder)
        return BrokerFacts(is_embedded, str(error), is_refused="NOAUTH" in str(error))
    finally:
        client.close()
    return BrokerFacts(
        is_embedded,
        milliseconds=milliseconds,
        info=info,
        unix_time=seconds + micros / 1e6,
    )


def diagnose(facts: BrokerFacts) -> Iterator[Diagnosis]:
    if facts.is_refused or facts.error:
        yield _diagnose_failure(facts)
        return
    info = facts.info
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version") or "of an unknown version"
    text = f"{name} {version}, {facts.milliseconds:.1f} ms"
    if facts.milliseconds > SLOW_MS:
        yield warning(SUBJECT, text, "check the network to the broker, and the load of its host")
    else:
        yield ok(SUBJECT, text)
    yield from _diagnose_durability(info)


def _diagnose_failure(facts: BrokerFacts) -> Diagnosis:
    if facts.missing_socket:
        return problem(
            SUBJECT,
            f"the broker runs (started by process {facts.process}), but its socket"
            f" {facts.missing_socket} is gone: a cleaner of temporary files may have removed it",
            "'make run' replaces the broker within a minute, otherwise restart the service"
            " llamactl-broker; exempt that directory from cleaning (tmpfiles.d), or set data_dir to"
            " a shorter path outside of /tmp",
        )
    if facts.is_refused:
        return problem(
            SUBJECT,
            f"the broker rejects the password: {facts.error}",
            "restart the broker: it reads broker/password at its start"
            if facts.is_embedded
            else "check the password in redis.url",
        )
    return problem(
        SUBJECT,
        f"the broker does not answer: {facts.error}",
        "start llamactl ('make run', or the service llamactl-broker); restart a hanging broker"
        if facts.is_embedded
        else "check that the broker runs, and redis.url",
    )


def _diagnose_durability(info: Mapping[str, object]) -> Iterator[Diagnosis]:
    for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"):
        if info.get(name, "ok") != "ok":
            yield problem(
                SUBJECT,
                f"the broker can't write to its disk ({name} is {info[name]})",
                "check the free space of the disk",
            )
    if not info.get("aof_enabled"):
        yield note(
            SUBJECT,
            "no append-only file: queued wake-ups are lost with the broker (a second's delay each)",
            "set appendonly yes",
        )
    if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
        yield warning(
            SUBJECT,
            f"the broker evicts keys when memory is short ({info.get('maxmemory_policy')})",
            "set maxmemory-policy noeviction",
        )
