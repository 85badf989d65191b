"""Questions to all web processes: which requests are in flight, and the cancellation of one.

A question is published on ``CHANNEL``; each web process puts its answer on the list of the
question. The hot path takes no part. The web processes are known from the traffic reports, so that
a silent one is counted, and one without requests is not.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypedDict, cast

import redis

from instances.scheduling.traffic_report import REPORT_KEY

CHANNEL = "llamactl:web-queries"
ANSWERS_KEY = "llamactl:web-answers:{query_id}"
ANSWERS_EXPIRE_SECONDS = 10
ANSWER_SECONDS = 1.0
"""How long a web process may take to answer: a busy event loop has turns of milliseconds. Less than
the time limit of the connection to the broker."""

Phase = Literal["queued", "loading", "prefill", "streaming"]


class RequestDocument(TypedDict):
    """One request in flight."""

    id: str
    client_request_id: str | None
    key: str
    key_id: int | None
    instance: str
    method: str
    path: str
    phase: str
    elapsed_seconds: float
    tokens: int | None
    bytes: int
    client: str | None


@dataclass(frozen=True)
class WebQuery:
    """A question: the requests in flight, or with ``cancel`` the end of one."""

    id: str
    cancel: str = ""
    """The id of the request to cancel."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes | str) -> WebQuery:
        document = json.loads(text)
        return cls(id=str(document["id"]), cancel=str(document.get("cancel", "")))


class WebAnswer(TypedDict):
    """The answer of one web process."""

    web_id: str
    requests: list[RequestDocument]
    """The requests in flight, oldest first; of a cancellation, the request as it was before."""
    total: int
    """The number of requests in flight, of which ``requests`` may be a part."""
    others: int
    """Of a cancellation: other requests that this web process has at the same instance."""


@dataclass(frozen=True)
class WebAnswers:
    """The answers that came in time."""

    answers: list[WebAnswer]
    asked: int
    """The number of living web processes."""

    @property
    def is_complete(self) -> bool:
        return len(self.answers) >= self.asked


def ask(
    client: redis.Redis,
    *,
    cancel: str = "",
    within_seconds: float = ANSWER_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> WebAnswers:
    """Ask all web processes, and wait for their answers. Raises redis.RedisError.

    A cancellation ends with the answer of the web process that has the request.
    """
    asked = {_web_id(key) for key in client.scan_iter(REPORT_KEY.format(web_id="*"), count=1000)}
    query = WebQuery(secrets.token_hex(16), cancel)
    answers_key = ANSWERS_KEY.format(query_id=query.id)
    client.publish(CHANNEL, query.to_json())
    answers: dict[str, WebAnswer] = {}
    ends_at = clock() + within_seconds
    while asked - answers.keys() and (left := ends_at - clock()) > 0:
        # The broker takes 0 for no limit.
        popped = cast(Any, client.blpop([answers_key], timeout=max(left, 0.01)))
        if popped is not None:
            answer: WebAnswer = json.loads(popped[1])
            answers[answer["web_id"]] = answer
            if cancel and answer["requests"]:
                break
    return WebAnswers(list(answers.values()), len(asked | answers.keys()))


def _web_id(key: bytes | str) -> str:
    text = key.decode() if isinstance(key, bytes) else key
    return text.removeprefix(REPORT_KEY.format(web_id=""))
