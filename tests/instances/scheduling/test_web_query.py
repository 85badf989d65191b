"""Questions to web processes, over a real broker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from instances.scheduling.traffic_report import REPORT_KEY, WebReport
from instances.scheduling.web_query import ANSWERS_KEY, CHANNEL, WebAnswer, WebQuery, ask
from llamactl.core.events import client

pytestmark = pytest.mark.usefixtures("broker")

Respond = Callable[[WebQuery], dict[str, Any] | None]


class WebProcess:
    """A web process that reports, and answers by ``respond``."""

    def __init__(self, web_id: str, respond: Respond) -> None:
        self.web_id = web_id
        self._respond = respond
        self._events = client().pubsub()  # type: ignore[no-untyped-call] # redis-py's
        self._events.subscribe(**{CHANNEL: self._on_query})
        self._events.get_message(timeout=5)
        client().set(REPORT_KEY.format(web_id=web_id), WebReport(web_id, 1).to_json(), ex=60)
        self._thread = self._events.run_in_thread(sleep_time=0.05, daemon=True)

    def _on_query(self, message: dict[str, Any]) -> None:
        query = WebQuery.from_json(message["data"])
        answer = self._respond(query)
        if answer is not None:
            full: dict[str, Any] = {"web_id": self.web_id, "total": 0, "others": 0, **answer}
            client().rpush(ANSWERS_KEY.format(query_id=query.id), json.dumps(full))

    def stop(self) -> None:
        self._thread.stop()
        self._thread.join(5)
        self._events.close()
        client().delete(REPORT_KEY.format(web_id=self.web_id))


@pytest.fixture
def web_process() -> Iterator[Callable[[str, Respond], None]]:
    started: list[WebProcess] = []
    yield lambda web_id, respond: started.append(WebProcess(web_id, respond))
    for each in started:
        each.stop()


def ids(answers: list[WebAnswer]) -> set[str]:
    return {answer["web_id"] for answer in answers}


def test_every_living_web_process_answers(web_process: Callable[[str, Respond], None]) -> None:
    for web_id in ("one", "two"):
        web_process(web_id, lambda query: {"requests": []})
    answers = ask(client(), within_seconds=10)
    assert (ids(answers.answers), answers.asked, answers.is_complete) == ({"one", "two"}, 2, True)


def test_one_that_does_not_answer_is_counted(
    web_process: Callable[[str, Respond], None],
) -> None:
    web_process("one", lambda query: {"requests": []})
    web_process("hangs", lambda query: None)
    answers = ask(client(), within_seconds=0.5)
    assert (ids(answers.answers), answers.asked, answers.is_complete) == ({"one"}, 2, False)


def test_a_cancellation_ends_with_the_web_process_that_has_the_request(
    web_process: Callable[[str, Respond], None],
) -> None:
    asked: list[str] = []
    answered = threading.Event()

    def has_it(query: WebQuery) -> dict[str, Any]:
        asked.append(query.cancel)
        answered.set()
        return {"requests": [{"id": query.cancel}]}

    web_process("hangs", lambda query: None)
    web_process("has it", has_it)
    answers = ask(client(), cancel="a" * 32, within_seconds=60)
    assert answered.is_set()
    assert (asked, ids(answers.answers)) == (["a" * 32], {"has it"})


def test_without_a_web_process_nothing_is_waited_for() -> None:
    answers = ask(client(), within_seconds=60)
    assert (answers.answers, answers.asked, answers.is_complete) == ([], 0, True)


def test_answers_are_the_questions_own(web_process: Callable[[str, Respond], None]) -> None:
    web_process("one", lambda query: {"requests": [{"id": query.id}]})
    first, second = ask(client(), within_seconds=10), ask(client(), within_seconds=10)
    assert first.answers[0]["requests"] != second.answers[0]["requests"]


def test_a_lost_broker_is_an_error() -> None:
    lost = redis.Redis(port=1, socket_connect_timeout=0.5)
    with pytest.raises(redis.ConnectionError):
        ask(lost)
