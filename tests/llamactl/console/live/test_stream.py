"""The stream of an open admin page: who gets one, what it tells, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from instances import lifecycle
from instances.logs.files import log_path
from instances.models import Instance
from keys import issuing
from llamactl.config import current
from llamactl.console.live import connection, hub, viewer
from llamactl.console.live.connection import Topics
from llamactl.console.live.consumer import PATH, stream_application
from llamactl.console.live.hub import LiveHub
from llamactl.core import events
from llamactl.core.change_feed import ChangeFeed
from nodes.models import Node

pytestmark = [pytest.mark.django_db(transaction=True)]

SECONDS = 20
HOST = [(b"host", b"llamactl.example")]


@pytest.fixture(autouse=True)
def feed(monkeypatch: pytest.MonkeyPatch) -> ChangeFeed:
    """A feed that hears of each change at once, as by way of the broker."""
    feed = ChangeFeed()
    monkeypatch.setattr(lifecycle, "wake_node", lambda node: None)
    monkeypatch.setattr(events, "publish", lambda event: feed.heard(json.dumps(event).encode()))
    monkeypatch.setattr(viewer, "publish", lambda event: None)
    monkeypatch.setattr(viewer, "process_feed", feed)
    return feed


@pytest.fixture
def live(feed: ChangeFeed) -> LiveHub:
    return LiveHub(feed)


def log_in(name: str = "olga", *codenames: str) -> Client:
    if codenames:
        user = User.objects.create_user(name, is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    else:
        user = User.objects.create_superuser(name)
    client = Client()
    client.force_login(user)
    return client


def create(name: str) -> Instance:
    document = {"backend_type": "llama_cpp", "backend_options": {"model": f"/{name}.gguf"}}
    instance = lifecycle.create(name, document, cause="test")
    Node.objects.update(heartbeat_at=timezone.now())
    return instance


class Page:
    """The stream of one page."""

    def __init__(self, live: LiveHub, client: Client | None, query: str, **headers: str) -> None:
        sent = [(b"host", b"llamactl.example")]
        if client is not None:
            value = client.cookies[settings.SESSION_COOKIE_NAME].value
            sent.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={value}".encode()))
        sent += [(name.encode(), text.encode()) for name, text in headers.items()]
        app = stream_application(live, public_origin="https://public.example")
        self.socket = WebsocketCommunicator(app, f"{PATH}?{query}", headers=sent)

    async def open(self) -> bool:
        is_open, _ = await self.socket.connect(timeout=SECONDS)
        return bool(is_open)

    async def message(self, *keys: str) -> dict[str, Any]:
        """Return the next message that has one of ``keys``."""
        async with asyncio.timeout(SECONDS):
            while True:
                found: dict[str, Any] = json.loads(await self.socket.receive_from(SECONDS))
                if not keys or found.keys() & set(keys):
                    return found

    async def ending(self) -> tuple[int, str]:
        async with asyncio.timeout(SECONDS):
            while True:
                message = await self.socket.receive_output(SECONDS)
                if message["type"] == "websocket.close":
                    return message["code"], message.get("reason", "")

    async def close(self) -> None:
        with suppress(asyncio.CancelledError):
            await self.socket.disconnect(timeout=SECONDS)


@pytest.fixture
async def pages(live: LiveHub) -> AsyncIterator[Any]:
    opened: list[Page] = []

    async def open_page(client: Client | None, query: str = "", **headers: str) -> Page:
        page = Page(live, client, query, **headers)
        opened.append(page)
        assert await page.open()
        return page

    yield open_page
    for page in opened:
        await page.close()
    assert not live.connections
    assert not live._tasks


in_thread = sync_to_async


async def test_list_gets_changed_new_and_removed_rows(pages: Any) -> None:
    client = await in_thread(log_in)()
    instance = await in_thread(create)("one")
    page = await pages(client, f"rows={instance.pk}")
    assert "now" in await page.message()
    assert (await page.message("problems"))["problems"] == ""
    first = await page.message("ids")
    assert (first["ids"], first["rows"][str(instance.pk)]["status"]) == ([instance.pk], "stopped")

    await in_thread(lifecycle.request_start)("one", cause="test")
    changed = await page.message("rows")
    assert list(changed["rows"]) == [str(instance.pk)]
    row = changed["rows"][str(instance.pk)]
    assert row["status"] == "starting"
    assert 'data-status="starting"' in row["cells"]["status_badge"]
    assert "one.gguf" in row["cells"]["served_model"]

    other = await in_thread(create)("two")
    assert (await page.message("rows"))["added"] == [other.pk]
    await in_thread(lifecycle.delete)("two", cause="test")
    assert (await page.message("rows"))["removed"] == [other.pk]


async def test_list_gets_the_number_of_keys(pages: Any) -> None:
    client = await in_thread(log_in)()
    instance = await in_thread(create)("one")
    page = await pages(client, "rows=")
    await page.message("ids")
    await in_thread(issuing.issue)(name="all", permission_mode="allow_all")
    changed = await page.message("rows")
    assert changed["rows"][str(instance.pk)]["cells"]["key_count"] == "1"


async def test_page_of_an_instance_gets_its_parts_its_log_and_its_end(pages: Any) -> None:
    client = await in_thread(log_in)()
    instance = await in_thread(create)("one")
    await in_thread(create)("other")
    page = await pages(client, f"instance={instance.pk}")
    first = await page.message("parts")
    assert set(first["parts"]) == {"facts", "trouble", "log", "history"}
    hostile = "<script>alert(1)</script>"
    path = log_path(current(), "one")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{hostile}\n")
    log = (await page.message("parts"))["parts"]
    assert list(log) == ["log"]
    assert "&lt;script&gt;" in log["log"]
    path.unlink()
    await page.message("parts")

    await in_thread(lifecycle.request_start)("other", cause="test")
    await in_thread(lifecycle.request_start)("one", cause="test")
    started = await page.message("parts")
    assert started["status"] == "starting"
    assert "facts" in started["parts"]
    await in_thread(lifecycle.request_stop)("one", cause="test")
    await in_thread(lifecycle.delete)("one", cause="test")
    await page.message("gone")


async def test_use_of_an_instance_shows_although_no_event_tells_of_it(
    pages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "NODES_SECONDS", 0.1)
    client = await in_thread(log_in)()
    instance = await in_thread(create)("one")
    page = await pages(client, f"instance={instance.pk}")
    await page.message("parts")
    rows = Instance.objects.filter(pk=instance.pk)
    await in_thread(rows.update)(last_used_at=timezone.now())
    assert "Last used" in (await page.message("parts"))["parts"]["facts"]


async def test_silent_worker_drained_node_broker_and_database_are_told(
    pages: Any, feed: ChangeFeed
) -> None:
    client = await in_thread(log_in)()
    await in_thread(create)("one")
    beat = timezone.now() - timedelta(seconds=17)
    await in_thread(Node.objects.update)(heartbeat_at=beat, drained_at=beat)
    page = await pages(client)
    told = (await page.message("changed"))["problems"]
    assert 'data-problem="worker" data-node="main"' in told
    assert 'data-problem="drained"' in told
    await in_thread(Node.objects.update)(heartbeat_at=timezone.now(), drained_at=None)
    feed.broker_lost()
    told = (await page.message("changed"))["problems"]
    assert told.count("data-problem") == 1
    assert "The broker does not answer" in told
    feed.broker_found()
    assert (await page.message("changed"))["problems"] == ""
    feed.database_lost()
    assert 'data-problem="database"' in (await page.message("changed"))["problems"]


async def test_account_that_sees_no_node_is_told_of_none(pages: Any) -> None:
    client = await in_thread(log_in)("kim", "view_inferencekey")
    await in_thread(create)("secret")
    page = await pages(client)
    told = await page.message("changed")
    assert told["problems"] == ""


@pytest.mark.parametrize("query", ["rows=1", "instance=1"])
async def test_instances_need_the_permission_to_view_them(live: LiveHub, query: str) -> None:
    client = await in_thread(log_in)("kim", "view_inferencekey")
    page = Page(live, client, query)
    assert await page.open()
    assert await page.ending() == (4403, "not_permitted")


async def test_no_session_an_ended_one_and_one_without_staff_get_nothing(live: LiveHub) -> None:
    former = await in_thread(log_in)()
    await in_thread(former.logout)()
    guest = await in_thread(log_in)("gus", "view_instance")
    await in_thread(User.objects.filter(username="gus").update)(is_staff=False)
    former.cookies[settings.SESSION_COOKIE_NAME] = "a" * 32
    for client in (None, former, guest):
        page = Page(live, client, "rows=")
        assert await page.open()
        assert await page.ending() == (4401, "logged_out")
    assert not live.connections


@pytest.mark.parametrize(
    ("origin", "is_open"),
    [
        ("http://llamactl.example", True),
        ("https://public.example", True),
        ("http://llamactl.example:8081", False),  # the port of the backends' pages
        ("https://evil.example", False),
        ("null", False),
    ],
)
async def test_only_pages_of_our_own_origin_get_a_stream(
    live: LiveHub, origin: str, is_open: bool
) -> None:
    page = Page(live, await in_thread(log_in)(), "", origin=origin)
    assert await page.open() is is_open
    await page.close()


async def test_logout_ends_the_pages_of_the_session_at_once(pages: Any) -> None:
    viewer.watch_logouts()
    client, other = await in_thread(log_in)(), await in_thread(log_in)("pia")
    page, stays = await pages(client), await pages(other)
    await in_thread(client.logout)()
    assert await page.ending() == (4401, "logged_out")
    assert await stays.message("beat") == {"beat": 1}


async def test_account_is_checked_again_while_its_page_is_open(
    pages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "CHECK_SECONDS", 0.1)
    client = await in_thread(log_in)("vera", "view_instance")
    page, plain = await pages(client, "rows="), await pages(client)
    vera = await in_thread(User.objects.get)(username="vera")
    await in_thread(vera.user_permissions.clear)()
    assert await page.ending() == (4403, "not_permitted")
    await in_thread(User.objects.filter(pk=vera.pk).update)(is_active=False)
    assert await plain.ending() == (4401, "logged_out")


async def test_page_that_does_not_read_is_dropped(
    live: LiveHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "QUEUE_LENGTH", 2)
    page = connection.Connection("x", viewer.Viewer(True, True, True), Topics())
    for _ in range(3):
        page.put("{}")
    assert page.ending.result() is connection.Ending.TOO_SLOW


async def test_pages_of_one_session_are_bounded(
    live: LiveHub, pages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "PAGES_PER_SESSION", 2)
    client = await in_thread(log_in)()
    for _ in range(2):
        await pages(client)
    third = Page(live, client, "")
    assert await third.open()
    assert await third.ending() == (4429, "too_many_pages")
    await pages(await in_thread(log_in)("pia"))


@pytest.mark.parametrize("flood", [["x"] * 101, ["x" * 1025]])
async def test_messages_of_a_client_are_dropped_and_then_the_client(
    pages: Any, flood: list[str]
) -> None:
    page = await pages(await in_thread(log_in)())
    await page.socket.send_to(text_data='{"rows": [1]}')
    for text in flood:
        await page.socket.send_to(text_data=text)
    assert await page.ending() == (4400, "pages_send_nothing")


async def test_open_idle_pages_ask_the_database_once_for_all(
    live: LiveHub, pages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It should be as many reads for one page as for ten, and none at all for a beat."""
    monkeypatch.setattr(hub, "BEAT_SECONDS", 0.01)
    client = await in_thread(log_in)()
    opened = [await pages(client, "rows=") for _ in range(10)]
    for page in opened:
        await page.message("ids")
    reads: list[object] = []

    async def read(function: Any) -> Any:
        reads.append(function)
        return await LiveHub._read(live, function)

    monkeypatch.setattr(live, "_read", read)
    for page in opened:
        for _ in range(5):
            await page.message("beat")
    assert len(reads) <= 4  # the nodes, every five seconds


@pytest.mark.parametrize(
    ("query", "rows", "instance"),
    [
        ("rows=1.2.3", {1, 2, 3}, None),
        ("rows=", set(), None),
        ("rows=1..x.-2.²." + "9" * 30, {1}, None),
        ("instance=4", None, 4),
        ("instance=4;drop", None, None),
        ("instance=" + "9" * 40, None, None),
        ("", None, None),
    ],
)
def test_topics_are_read_from_any_query(
    query: str, rows: set[int] | None, instance: int | None
) -> None:
    topics = Topics.from_query(query)
    assert topics == Topics(None if rows is None else frozenset(rows), instance)


def test_hostile_query_has_no_topics() -> None:
    assert Topics.from_query("&".join(["rows=1"] * 100)) == Topics()
    assert len(Topics.from_query("rows=" + "1.2." * 5000).rows or ()) == 2
