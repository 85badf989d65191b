"""A web process that answers questions, over a real broker."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from asgiref.sync import sync_to_async
from blockbuster import BlockBuster

from instances.scheduling.web_query import CHANNEL, WebAnswers, ask
from llamactl.core.events import client
from proxy.gateway import Gateway
from tests.proxy.test_registry import FinishedRequest
from tests.support.until import until_async

pytestmark = pytest.mark.django_db(transaction=True)


class Running(FinishedRequest):
    """A request that can be cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.exchange.instance = "demo"
        self.exchange.sent_at = 1.0
        self.is_cancelled = False

    def cancel(self, error: Exception) -> bool:
        self.is_cancelled = True
        return True


async def question(cancel: str = "") -> WebAnswers:
    return await sync_to_async(ask)(client(), cancel=cancel, within_seconds=10)


async def test_questions_are_answered_by_every_web_process(
    broker: None, no_blocking_call: BlockBuster
) -> None:
    no_blocking_call.deactivate()
    gateways = [Gateway(), Gateway()]
    for gateway in gateways:
        await gateway.start()
    try:
        await until_async(lambda: client().pubsub_numsub(CHANNEL)[0][1] == 2, "both listen")
        ours, other = Running(), Running()
        for request in (ours, other):
            gateways[0].registry.begin(cast(Any, request))
            gateways[0].in_flight.begin(request.exchange)
        listed = await question()
        assert listed.asked == 2
        assert sorted(answer["total"] for answer in listed.answers) == [0, 2]
        cancelled = await question(ours.exchange.id)
        (found,) = [answer for answer in cancelled.answers if answer["requests"]]
        assert (found["requests"][0]["id"], found["others"]) == (ours.exchange.id, 1)
        assert (ours.is_cancelled, other.is_cancelled) == (True, False)
        assert all(not answer["requests"] for answer in (await question("0" * 32)).answers)
        # It should pass over what is no question.
        client().publish(CHANNEL, b"\xff{")
        client().publish(CHANNEL, "[]")
        assert (await question()).is_complete
    finally:
        await asyncio.gather(*(gateway.stop() for gateway in gateways))
