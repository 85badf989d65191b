"""A node's agent answers for the node: no caller reads this host's disk or programs instead."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.test import Client

from instances import lifecycle
from instances.admin.detail import overview
from instances.dry_run import command_line_of, findings_of
from llamactl.config import current
from nodes.agent import (
    FindingDocument,
    LogLine,
    StartCommand,
    agent_for,
    has_own_agent,
    register_agent,
    unregister_agent,
)
from nodes.errors import LogUnreadable
from tests.instances.preflight.test_check import with_node
from tests.support.asgi import AsgiRequest

pytestmark = pytest.mark.django_db
INSTANCES = "/api/v1/instances"
FINDING: FindingDocument = {
    "field": "backend_options.model",
    "severity": "error",
    "message": "'/models/m.gguf' is a model of 1998",
    "suggestion": "",
}


class StubText:
    """A log of two blocks."""

    def __init__(self) -> None:
        self._blocks = [b"one\n", b"two\n"]
        self.is_closed = False

    def read(self, limit: int) -> bytes:
        return self._blocks.pop(0) if self._blocks else b""

    def close(self) -> None:
        self.is_closed = True


class StubFollowedLog:
    """A followed log of one line, the arguments of ``follow_log``."""

    def __init__(self, text: str) -> None:
        self._lines = [LogLine("place-1", text)]
        self.is_closed = False

    def read_lines(self) -> list[LogLine]:
        lines, self._lines = self._lines, []
        return lines

    def close(self) -> None:
        self.is_closed = True


class StubAgent:
    """An agent without a disk or a program."""

    def __init__(self) -> None:
        self.text = StubText()
        self.followed: StubFollowedLog | None = None
        self.is_unreadable = False

    def last_lines(self, instance: str, count: int, *, max_bytes: int | None = None) -> list[str]:
        if self.is_unreadable:
            raise LogUnreadable(instance, "No route to host")
        return [f"the last {count} lines of {instance}"]

    def read_log(self, instance: str, *, lines: int | None = None) -> StubText:
        if self.is_unreadable:
            raise LogUnreadable(instance, "No route to host")
        if lines is not None:
            self.text._blocks = [f"the last {lines} lines of {instance}\n".encode()]
        return self.text

    def follow_log(self, instance: str, *, lines: int | None, after: str = "") -> StubFollowedLog:
        self.followed = StubFollowedLog(f"{instance} from {after or lines}")
        return self.followed

    def retire_log(self, instance: str) -> None:
        """There is no log."""

    def program_output(self, backend_type: str, flag: str) -> str:
        return f"{backend_type} {flag}"

    def check_options(
        self, options: Mapping[str, object], *, unsaved: Collection[str]
    ) -> list[FindingDocument]:
        return [FINDING]

    def start_command(self, name: str, options: Mapping[str, object], port: int) -> StartCommand:
        return StartCommand(("/far/server", "--port", str(port)), {"LLAMA_API_KEY": "k"}, "/far")


@pytest.fixture
def agent(override: Any, settings: Any) -> Iterator[StubAgent]:
    """The agent of node ``far``."""
    settings.LLAMACTL = with_node(override)
    stub = StubAgent()
    register_agent(stub, node="far")
    yield stub
    unregister_agent("far")


@pytest.fixture
def document() -> dict[str, object]:
    return {"nodes": ["far"], "backend_options": {"model": "/models/m.gguf"}}


@pytest.fixture
def instance(agent: StubAgent, document: dict[str, object]) -> Any:
    return lifecycle.create("x", document, cause="test")


def test_node_without_an_agent_of_its_own_is_answered_for_by_this_host() -> None:
    assert agent_for("far") is agent_for(current().local_node)
    assert not has_own_agent("far")


def test_last_lines_come_from_the_agent(api: Client, instance: Any) -> None:
    assert api.get(f"{INSTANCES}/x/logs?lines=3").content == b"the last 3 lines of x\n"
    assert overview(instance).log == "the last 100 lines of x"


def test_agent_that_cannot_read_a_log_is_reported(
    api: Client, agent: StubAgent, instance: Any
) -> None:
    agent.is_unreadable = True
    response = api.get(f"{INSTANCES}/x/logs?lines=3")
    assert (response.status_code, response.json()["error"]) == (500, "logs_failed")
    assert "No route to host" in overview(instance).log_problem


def get_logs(key: str, query: bytes = b"") -> AsgiRequest:
    path = f"{INSTANCES}/x/logs"
    return AsgiRequest(ASGIHandler(), path, method="GET", key=key, query=query).start()


@pytest.mark.django_db(transaction=True)
async def test_whole_log_comes_from_the_agent_and_is_closed(
    agent: StubAgent, document: dict[str, object], management_key: str
) -> None:
    await asyncio.to_thread(lifecycle.create, "x", document, cause="test")
    answer = await get_logs(management_key).finish()
    assert (answer.status, answer.body) == (200, b"one\ntwo\n")
    assert agent.text.is_closed


@pytest.mark.django_db(transaction=True)
async def test_followed_log_comes_from_the_agent_and_is_closed(
    agent: StubAgent, document: dict[str, object], management_key: str
) -> None:
    await asyncio.to_thread(lifecycle.create, "x", document, cause="test")
    exchange = get_logs(management_key, b"follow=true&lines=7")
    await exchange.first_chunk()
    async with asyncio.timeout(10):
        while b"data" not in exchange.response.body:
            await asyncio.sleep(0.01)
    assert exchange.response.body.endswith(b"id: place-1\ndata: x from 7\n\n")
    exchange.disconnect()
    await exchange.finish()
    assert agent.followed is not None
    assert agent.followed.is_closed


def test_options_are_checked_by_the_agent(
    api: Client, agent: StubAgent, document: dict[str, object]
) -> None:
    response = api.post(f"{INSTANCES}/x?strict=true", document, content_type="application/json")
    assert (response.status_code, response.json()["errors"]) == (400, [FINDING])
    instance = lifecycle.create("x", document, cause="test")
    assert [finding.to_document() for finding in findings_of(instance, {})] == [FINDING]


def test_dry_run_shows_the_command_of_the_agent(
    api: Client, agent: StubAgent, document: dict[str, object]
) -> None:
    url = f"{INSTANCES}/x?dry_run=true"
    shown = api.post(url, document, content_type="application/json").json()
    assert shown["command"][:2] == ["/far/server", "--port"]
    assert shown["environment"] == {"LLAMA_API_KEY": "***"}
    assert shown["working_directory"] == "/far"
    # It should not say that the node can't be seen.
    assert (shown["errors"], shown["warnings"]) == ([FINDING], [])
    instance = lifecycle.create("x", document, cause="test")
    assert command_line_of(instance).startswith("/far/server --port")


@pytest.mark.parametrize(
    ("path", "flag"),
    [("help", "--help"), ("version", "--version"), ("devices", "--list-devices")],
)
def test_programs_are_run_by_the_local_agent(api: Client, path: str, flag: str) -> None:
    register_agent(StubAgent(), node=current().local_node)
    try:
        text = api.get(f"/api/v1/backends/llama-cpp/{path}").content.decode()
    finally:
        unregister_agent(current().local_node)
    assert text == f"llama_cpp {flag}"
