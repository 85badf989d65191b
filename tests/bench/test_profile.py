"""Whose time is a sample of the profiler?"""

from __future__ import annotations

import pytest

from bench.profile import LOOP, PARTS, part_of, shares

SERVE = "<module> (llamactl/server/web/__main__.py:49);Server.run (uvicorn/server.py:86)"
CYCLE = f"{SERVE};RequestResponseCycle.run_asgi (uvicorn/protocols/http/httptools_impl.py:422)"
FORWARD = f"{CYCLE};ProxyConsumer._forward (proxy/consumers.py:115)"


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        (f"{SERVE};Runner.run (asyncio/runners.py:118)", LOOP),
        (CYCLE, PARTS["uvicorn"]),
        (f"{CYCLE};digest (keys/secrets.py:27)", PARTS["proxy"]),
        # The standard library works for whoever called it.
        (f"{FORWARD};create_task (asyncio/tasks.py:381)", PARTS["proxy"]),
        (f"{FORWARD};Connection.ask (proxy/upstream/connection.py:82)", PARTS["proxy/upstream"]),
        (
            f"{SERVE};Coalescing._flush (llamactl/server/web/write_coalescing.py:34)",
            PARTS["llamactl/server"],
        ),
    ],
)
def test_a_sample_counts_for_the_innermost_package(stack: str, expected: str) -> None:
    assert part_of(stack.split(";")) == expected


def test_shares_add_up() -> None:
    found = shares(f"{CYCLE} 3\n{FORWARD} 1\n")
    assert found == {PARTS["uvicorn"]: 0.75, PARTS["proxy"]: 0.25}
