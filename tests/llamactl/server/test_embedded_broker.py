"""The embedded broker under the process group: access, file modes, respawn after a kill."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kombu
import psutil
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
from llamactl.server import liveness
from llamactl.server.embedded_broker import EmbeddedBroker
from llamactl.server.process_group import ProcessGroup, Stopped
from llamactl.server.respawn_policy import RespawnPolicy
from llamactl.server.services import broker_spec

# The group's own process has one thread; the test runner's has more, which Python warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def config_in(data_dir: Path, redis_url: str | None = None) -> AppConfig:
    return AppConfig(data_dir=data_dir, redis=RedisConfig.model_validate({"url": redis_url}))


@contextmanager
def running_broker(config: AppConfig) -> Iterator[ProcessGroup]:
    policy = RespawnPolicy(first_delay_seconds=0.01)
    stages = [[broker_spec(config)]]
    with ProcessGroup(stages, print_line=lambda line: None, respawn_policy=policy) as group:
        group.start()
        yield group


def client_of(config: AppConfig) -> redis.Redis:
    return redis.Redis.from_url(broker_urls(config).redis)


def process_of(config: AppConfig) -> int:
    with client_of(config) as client:
        return int(client.info("server")["process_id"])


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
def test_a_configured_broker_has_a_url_for_each_client(
    tmp_path: Path, url: str, celery: str
) -> None:
    urls = broker_urls(config_in(tmp_path, url))
    assert (urls.celery, urls.redis, urls.channels) == (celery, url, url)
    # It should make no password for an external broker.
    assert list(tmp_path.iterdir()) == []


def test_the_urls_of_the_embedded_broker_start_nothing(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    first, second = broker_urls(config), broker_urls(config)
    assert first == second
    assert [path.name for path in (tmp_path / "broker").iterdir()] == ["password"]


def test_every_kind_of_client_connects(tmp_path: Path) -> None:
    # It should work with a path that is quoted in a URL, and in Valkey's config file.
    config = config_in(tmp_path / "a b%41#\"'ü")
    urls = broker_urls(config)

    async def use_channel_layer() -> None:
        layer = RedisPubSubChannelLayer(hosts=[urls.channels])
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "hello"})
        assert await layer.receive(channel) == {"type": "hello"}
        await layer.flush()

    with running_broker(config):
        with client_of(config) as client:
            assert client.ping()
        with kombu.Connection(urls.celery) as connection:
            connection.ensure_connection(max_retries=1)
            with connection.SimpleQueue("queue") as queue:
                queue.put({"answer": 42})
                assert queue.get(timeout=5).payload == {"answer": 42}
        asyncio.run(use_channel_layer())


def test_a_wrong_password_is_rejected(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with running_broker(config):
        for password in (None, "wrong"):
            # By default the client retries a rejected password for eight seconds.
            client = redis.Redis(
                unix_socket_path=str(EmbeddedBroker(config).socket_path),
                password=password,
                retry=Retry(NoBackoff(), 0),
            )
            with client, pytest.raises(redis.AuthenticationError):
                client.ping()


def test_a_server_with_another_password_is_not_ready(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with running_broker(config):
        (tmp_path / "broker" / "password").write_text("another one\n")
        assert not EmbeddedBroker(config).is_ready()


def test_only_its_owner_has_access_to_its_files(tmp_path: Path) -> None:
    config = config_in(tmp_path / "data")
    server = EmbeddedBroker(config)
    with running_broker(config):
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in [server.directory, *server.directory.iterdir()]
            if path.name != "appendonlydir"  # in a directory that only its owner can enter
        }
        command_line = Path(f"/proc/{process_of(config)}/cmdline").read_text()
    assert modes == {
        "broker": 0o700,
        "lock": 0o600,
        "password": 0o600,
        "valkey.conf": 0o600,
        "valkey.log": 0o600,
        "valkey.sock": 0o600,
    }
    assert (server.directory / "password").read_text().strip() not in command_line


def test_a_second_server_on_the_directory_is_refused(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with running_broker(config):
        with pytest.raises(BrokerError, match="another broker already runs on"):
            EmbeddedBroker(config).prepare(wait_seconds=0)
        # It should leave the first server reachable.
        with client_of(config) as client:
            assert client.ping()


def test_queued_messages_survive_a_kill_and_the_stale_socket_is_replaced(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with running_broker(config) as group:
        with client_of(config) as client:
            client.rpush("queue", "a", "b")
        killed = process_of(config)
        os.kill(killed, signal.SIGKILL)
        group.watch(0.05)
        # It should wait for the lock of the killed server, and replace its socket.
        while not EmbeddedBroker(config).is_ready():
            group.watch(0.05)
        assert process_of(config) != killed
        with client_of(config) as client:
            assert client.lrange("queue", 0, -1) == [b"a", b"b"]


@pytest.mark.parametrize("fault", ["frozen", "its socket removed"])
def test_a_server_that_can_not_be_reached_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(liveness, "INTERVAL_SECONDS", 0.3)
    config = config_in(tmp_path)
    with running_broker(config) as group:
        with client_of(config) as client:
            client.rpush("queue", "a", "b")
        first = process_of(config)
        group.watch(2.0)  # it should not be replaced while it answers
        assert process_of(config) == first
        if fault == "frozen":
            os.kill(first, signal.SIGSTOP)
        else:
            EmbeddedBroker(config).socket_path.unlink()
        deadline = time.monotonic() + 30
        while psutil.pid_exists(first) or not EmbeddedBroker(config).is_ready():
            assert time.monotonic() < deadline
            group.watch(0.05)
        with client_of(config) as client:
            assert client.lrange("queue", 0, -1) == [b"a", b"b"]


def test_stopping_ends_the_server_and_removes_its_socket(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    server = EmbeddedBroker(config)
    with running_broker(config):
        assert server.is_ready()
    assert not server.is_ready()
    assert not server.socket_path.exists()
    # It should give the lock back.
    os.close(server.prepare(wait_seconds=0))


def test_a_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    directory = tmp_path / "broker"
    directory.mkdir()
    (directory / "appendonlydir").write_text("not a directory")
    log_end = r"exit code 1\).*\n(.*\n)*.*append-?only dir"
    with pytest.raises(Stopped, match=log_end), running_broker(config):
        pass


def test_a_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    data_dir = tmp_path / ("x" * LONGEST_SOCKET_PATH)
    config = config_in(data_dir)
    directory = fallback_directory(data_dir)
    try:
        assert EmbeddedBroker(config).socket_path == directory / "valkey.sock"
        with running_broker(config), client_of(config) as client:
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            assert client.ping()
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
