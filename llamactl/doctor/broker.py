"""Does the broker answer, to our password, and does it keep what it is told?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from llamactl.config import AppConfig
from llamactl.core.broker_url import broker_urls
from llamactl.doctor.findings import Diagnosis, note, ok, problem, warning

SUBJECT = "broker"
PATIENCE_SECONDS = 2.0
SLOW_MS = 50.0


@dataclass(frozen=True)
class BrokerFacts:
    is_embedded: bool
    error: str = ""
    is_refused: bool = False
    """It is there, and doesn't take our password."""
    milliseconds: float = 0.0
    info: Mapping[str, object] = field(default_factory=dict)
    unix_time: float | None = None
    """By its own clock."""


def look(config: AppConfig) -> BrokerFacts:
    is_embedded = config.redis.url is None
    client = redis.Redis.from_url(
        broker_urls(config).redis,
        socket_timeout=PATIENCE_SECONDS,
        socket_connect_timeout=PATIENCE_SECONDS,
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
        return BrokerFacts(is_embedded, str(error), is_refused="NOAUTH" in str(error))
    finally:
        client.close()
    return BrokerFacts(
        is_embedded,
        milliseconds=milliseconds,
        info=info,
        unix_time=seconds + micros / 1e6,
    )


def judge(facts: BrokerFacts) -> Iterator[Diagnosis]:
    if facts.is_refused:
        yield problem(
            SUBJECT,
            f"it refuses our password: {facts.error}",
            "restart it: it reads broker/password at its start"
            if facts.is_embedded
            else "is the password in redis.url the one that it has?",
        )
        return
    if facts.error:
        yield problem(
            SUBJECT,
            f"it does not answer: {facts.error}",
            "start llamactl ('make run', or the service llamactl-broker); restart it if it hangs"
            if facts.is_embedded
            else "is it up, and is redis.url right?",
        )
        return
    info = facts.info
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version") or "of an unknown version"
    text = f"{name} {version}, {facts.milliseconds:.1f} ms"
    if facts.milliseconds > SLOW_MS:
        yield warning(SUBJECT, text, "is it far away, or is its host busy?")
    else:
        yield ok(SUBJECT, text)
    for what in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"):
        if info.get(what, "ok") != "ok":
            yield problem(
                SUBJECT, f"it can't write to its disk ({what} is {info[what]})", "is there room?"
            )
    if not info.get("aof_enabled"):
        yield note(
            SUBJECT,
            "without an append-only file: what is queued is lost with it, and costs a second each",
            "appendonly yes",
        )
    if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
        yield warning(
            SUBJECT,
            f"short of memory it forgets ({info.get('maxmemory_policy')})",
            "maxmemory-policy noeviction",
        )
