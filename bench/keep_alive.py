"""``python -m bench.keep_alive``: requests at the moment in which backends close idle connections.

llama.cpp and vLLM close a kept connection after 5 s without a request. Requests in bursts, 3.9 to
5.1 s apart, find as many idle connections as the burst had requests, at the moment in which the
backend closes the connections. None may fail.

Asks for tokens (``POST /llama-cpp/{instance}/tokenize``), which costs a model nothing. Exit status:
0 all were answered, 1 some were not.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter

import aiohttp

FIRST_GAP_SECONDS = 3.9
LAST_GAP_SECONDS = 5.1
SPREAD_SECONDS = 0.05
"""Over which the requests of a burst begin: the moment of closing is met from both sides."""


async def bursts(url: str, key: str, *, requests: int, at_once: int, seed: int = 0) -> Counter[str]:
    """How often each outcome was, ``200`` among them."""
    outcomes: Counter[str] = Counter()
    chance = random.Random(seed)
    rounds = max(2, -(-requests // at_once))
    gap = (LAST_GAP_SECONDS - FIRST_GAP_SECONDS) / (rounds - 1)
    timeout = aiohttp.ClientTimeout(total=60)
    # Connections of our own that are not kept: it is llamactl's to the backend that matter.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def ask(after_seconds: float) -> str:
            await asyncio.sleep(after_seconds)
            headers = {"Authorization": f"Bearer {key}"}
            try:
                async with session.post(url, json={"content": "hello"}, headers=headers) as answer:
                    text = await answer.text()
                    return "200" if answer.status == 200 else f"{answer.status} {text[:200]}"
            except (aiohttp.ClientError, TimeoutError) as error:
                return repr(error)

        for number in range(rounds):
            outcomes.update(
                await asyncio.gather(
                    *(ask(chance.uniform(0, SPREAD_SECONDS)) for _ in range(at_once))
                )
            )
            if number < rounds - 1:
                await asyncio.sleep(FIRST_GAP_SECONDS + number * gap)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.keep_alive")
    parser.add_argument("--base-url", required=True, help="a running llamactl: http://host:port")
    parser.add_argument("--key", required=True, help="an inference key")
    parser.add_argument("--instance", required=True, help="a llama.cpp instance that runs")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=400, help="its threads_http must allow that")
    given = parser.parse_args()
    url = f"{given.base_url}/llama-cpp/{given.instance}/tokenize"
    began_at = time.monotonic()
    outcomes = asyncio.run(bursts(url, given.key, requests=given.requests, at_once=given.at_once))
    print(f"{outcomes.total()} requests in {time.monotonic() - began_at:.0f} s")
    for outcome, count in outcomes.most_common():
        print(f"{count:6}  {outcome}")
    return 0 if set(outcomes) == {"200"} else 1


if __name__ == "__main__":
    sys.exit(main())
