"""The embedded broker: who gets in, who is kept out, and what a kill leaves behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import kombu
import pytest
import redis
from channels_redis.pubsub import RedisPubSubChannelLayer
from redis.backoff import NoBackoff
from redis.retry import Retry

from llamactl.config import AppConfig, RedisConfig
from llamactl.core.broker_url import (
    LONGEST_SOCKET_PATH,
    BrokerError,
    broker_urls,
    fallback_directory,
)
from llamactl.server.embedded_broker import EmbeddedBroker

StartBroker = Callable[[AppConfig], EmbeddedBroker]


def config_in(data_dir: Path, redis_url: str | None = None) -> AppConfig:
    return AppConfig(data_dir=data_dir, redis=RedisConfig.model_validate({"url": redis_url}))


@pytest.fixture
def start_broker() -> Iterator[StartBroker]:
    started: list[EmbeddedBroker] = []

    def start(config: AppConfig) -> EmbeddedBroker:
        server = EmbeddedBroker(config)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop(grace_seconds=5)


def process_of(server: EmbeddedBroker) -> int:
    assert server._process is not None
    return server._process.pid


def ping(config: AppConfig) -> bool:
    with redis.Redis.from_url(broker_urls(config).redis) as client:
        return bool(client.ping())


@pytest.mark.parametrize(
    ("url", "celery"),
    [
        ("redis://:pw@host:6379/0", "redis://:pw@host:6379/0"),
        ("rediss://host/1", "rediss://host/1"),
        ("unix:///run/valkey.sock", "redis+socket:///run/valkey.sock"),
        (
            "unix://:p%40w@/run/valkey.sock?db=2",
            "redis+socket://:p%40w@/run/valkey.sock?virtual_host=2",
        ),
    ],
)
def test_a_configured_broker_is_said_in_the_dialect_of_each_client(
    tmp_path: Path, url: str, celery: str
) -> None:
    urls = broker_urls(config_in(tmp_path, url))
    assert (urls.celery, urls.redis, urls.channels) == (celery, url, url)
    # It should make no password for a broker that isn't ours.
    assert list(tmp_path.iterdir()) == []


def test_asking_for_the_address_starts_nothing(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    first, second = broker_urls(config), broker_urls(config)
    assert first == second
    assert [path.name for path in (tmp_path / "broker").iterdir()] == ["password"]


async def test_every_kind_of_client_gets_in(tmp_path: Path, start_broker: StartBroker) -> None:
    # It should stand a path that has to be quoted in a URL, and in Valkey's config file.
    config = config_in(tmp_path / "a b%41#\"'ü")
    start_broker(config)
    urls = broker_urls(config)
    assert ping(config)
    with kombu.Connection(urls.celery) as connection:
        connection.ensure_connection(max_retries=1)
        with connection.SimpleQueue("queue") as queue:
            queue.put({"answer": 42})
            assert queue.get(timeout=5).payload == {"answer": 42}
    layer = RedisPubSubChannelLayer(hosts=[urls.channels])
    channel = await layer.new_channel()
    await layer.send(channel, {"type": "hello"})
    assert await layer.receive(channel) == {"type": "hello"}
    await layer.flush()


def test_a_wrong_password_is_refused(tmp_path: Path, start_broker: StartBroker) -> None:
    server = start_broker(config_in(tmp_path))
    for password in (None, "wrong"):
        # By default the client tries a refused password again for eight seconds.
        client = redis.Redis(
            unix_socket_path=str(server.socket_path),
            password=password,
            retry=Retry(NoBackoff(), 0),
        )
        with client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_a_server_with_another_password_is_not_ready(
    tmp_path: Path, start_broker: StartBroker
) -> None:
    config = config_in(tmp_path)
    start_broker(config)
    (tmp_path / "broker" / "password").write_text("another one\n")
    assert not EmbeddedBroker(config).is_ready()


def test_only_its_owner_can_touch_what_it_writes(tmp_path: Path, start_broker: StartBroker) -> None:
    server = start_broker(config_in(tmp_path / "data"))
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in [server.directory, *server.directory.iterdir()]
        if path.name != "appendonlydir"  # in a directory that nobody else can enter
    }
    assert modes == {
        "broker": 0o700,
        "lock": 0o600,
        "password": 0o600,
        "valkey.conf": 0o600,
        "valkey.log": 0o600,
        "valkey.sock": 0o600,
    }
    command_line = Path(f"/proc/{process_of(server)}/cmdline").read_text()
    assert (server.directory / "password").read_text().strip() not in command_line


def test_a_second_server_on_the_directory_is_refused(
    tmp_path: Path, start_broker: StartBroker
) -> None:
    config = config_in(tmp_path)
    start_broker(config)
    with pytest.raises(BrokerError, match="another broker already runs on"):
        EmbeddedBroker(config).prepare(wait_seconds=0)
    # It should leave the first one reachable.
    assert ping(config)


def test_what_was_queued_survives_a_kill_and_the_stale_socket_is_no_obstacle(
    tmp_path: Path, start_broker: StartBroker
) -> None:
    config = config_in(tmp_path)
    killed = start_broker(config)
    with redis.Redis.from_url(broker_urls(config).redis) as client:
        client.rpush("queue", "a", "b")
    os.kill(process_of(killed), signal.SIGKILL)
    # It should wait for the lock by itself: nobody has reaped the first one yet.
    start_broker(config)
    assert killed.socket_path.is_socket()
    with redis.Redis.from_url(broker_urls(config).redis) as client:
        assert client.lrange("queue", 0, -1) == [b"a", b"b"]


def test_stopping_ends_the_server_and_removes_its_socket(
    tmp_path: Path, start_broker: StartBroker
) -> None:
    server = start_broker(config_in(tmp_path))
    server.stop()
    assert not server.is_ready()
    assert not server.socket_path.exists()
    server.stop()


def test_a_start_that_fails_shows_the_end_of_the_log(
    tmp_path: Path, start_broker: StartBroker
) -> None:
    config = config_in(tmp_path)
    directory = tmp_path / "broker"
    directory.mkdir()
    (directory / "appendonlydir").write_text("not a directory")
    with pytest.raises(BrokerError, match=r"ended with code 1:\n(.*\n)*.*append-?only dir"):
        start_broker(config)


def test_a_path_too_long_for_a_socket_gets_a_short_one(
    tmp_path: Path, start_broker: StartBroker
) -> None:
    data_dir = tmp_path / ("x" * LONGEST_SOCKET_PATH)
    config = config_in(data_dir)
    directory = fallback_directory(data_dir)
    try:
        server = start_broker(config)
        assert server.socket_path == directory / "valkey.sock"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert ping(config)
        server.stop()
    finally:
        directory.rmdir()


def test_a_short_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    directory = fallback_directory(tmp_path)
    try:
        directory.chmod(0o755)
        with pytest.raises(BrokerError, match="is not ours alone"):
            fallback_directory(tmp_path)
        directory.rmdir()
        directory.symlink_to(tmp_path)
        with pytest.raises(BrokerError, match="is not ours alone"):
            fallback_directory(tmp_path)
    finally:
        directory.unlink()


def test_a_server_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from llamactl.broker import EmbeddedBroker
from llamactl.config import AppConfig
EmbeddedBroker(AppConfig(data_dir=Path({str(tmp_path)!r}))).start()
print("ready", flush=True)
input()
"""
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        assert EmbeddedBroker(config_in(tmp_path)).is_ready()
        parent.kill()
    # The lock is free once the server is gone.
    os.close(EmbeddedBroker(config_in(tmp_path)).prepare(wait_seconds=10))
    assert not EmbeddedBroker(config_in(tmp_path)).is_ready()
