"""Bounded requests for a JSON document of a backend, whose answer is untrusted."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from proxy.headers import to_backend
from proxy.table.table import Target
from proxy.upstream import BackendError, Upstream

TIMEOUT_SECONDS = 2.0
MAX_BYTES = 2**20
MAX_VALUES = 20_000
"""A model of llama.cpp's router has about forty. A document of 1 MiB may have 300,000, and take
30 MB and 20 ms of the event loop."""


async def get_json(target: Target, upstream: Upstream, path: str) -> Any:
    """The document at the path; ``None`` if there is no valid answer in time."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            answer = await upstream.open(
                target,
                method="GET",
                path_and_query=path,
                headers=to_backend((), target.authorization),
                body=b"",
                # On a connection that the backend is closing just now the answer would be lost.
                fresh=True,
            )
            with answer:
                body = await answer.read_whole(MAX_BYTES)
        if answer.status != 200 or sum(map(body.count, (b",", b":", b"[", b"{"))) > MAX_VALUES:
            return None
        return orjson.loads(body)
    except (BackendError, TimeoutError, orjson.JSONDecodeError):
        return None
