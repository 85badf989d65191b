"""Clients that send requests during a fault, and the outcome of every request.

::

    with Traffic(stack, key, ["one", "two"]) as traffic:
        traffic.until_streaming()      # every streaming client is in the middle of an answer
        …                              # the fault
        traffic.until_served()         # every client has had another whole answer
    assert traffic.counts("web killed").is_flawless

Each request carries a unique word; its backend logs the word when it carries the request out, and
answers with the word, numbered. So an answer that is cut, mixed up with another, or given twice is
recognised, and so is a request that was carried out twice.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.support.stack import Stack
from tests.support.until import until

ANSWER_SECONDS = 60
"""How long a client waits for a sign of life."""
SERVED_SECONDS = 45
PAUSE_AFTER_FAILURE_SECONDS = 0.1

STREAM_LENGTHS = (60, 5, 90, 20)
"""Tokens; some answers are long enough to be in progress during any fault."""
PLAIN_LENGTHS = (3, 25)
TOKEN_SECONDS = 0.04


@dataclass(frozen=True)
class Answer:
    """One request and how it ended."""

    nonce: str
    instance: str
    port: int
    """The client's: which web process had the request is known by it."""
    status: int
    problem: str
    """The problem with the answer, or ""."""


@dataclass(frozen=True)
class Counts:
    """Sums over all requests; ``doubled`` were carried out more than once."""

    whole: int
    failed: int
    doubled: int
    management: int
    management_failed: int
    problems: tuple[str, ...]

    @property
    def is_flawless(self) -> bool:
        return self.whole > 0 and not (self.failed or self.doubled or self.management_failed)


class Client(threading.Thread):
    """Sends one request after the other to one instance."""

    def __init__(self, traffic: Traffic, instance: str, *, is_stream: bool, number: int) -> None:
        super().__init__(name=f"client of {instance}", daemon=True)
        self.answers: list[Answer] = []
        self.is_amid = False
        """Whether it has had some of an answer, and not yet all."""
        self._traffic = traffic
        self._instance = instance
        self._is_stream = is_stream
        self._number = number

    @property
    def whole(self) -> int:
        return sum(not answer.problem for answer in list(self.answers))

    def run(self) -> None:
        lengths = STREAM_LENGTHS if self._is_stream else PLAIN_LENGTHS
        sent = self._number
        while not self._traffic.is_over.is_set():
            answer = self._ask(lengths[sent % len(lengths)])
            self.is_amid = False
            self.answers.append(answer)
            sent += 1
            if answer.problem:
                time.sleep(PAUSE_AFTER_FAILURE_SECONDS)

    def _ask(self, tokens: int) -> Answer:
        nonce = uuid.uuid4().hex
        document = {
            "model": self._instance,
            "messages": [{"role": "user", "content": "?"}],
            "stream": self._is_stream,
            "max_tokens": tokens,
            "tps": 1 / TOKEN_SECONDS,
            "nonce": nonce,
        }
        expected = [f"{nonce}:{number + 1}" for number in range(tokens)]
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._traffic.stack.port, timeout=ANSWER_SECONDS
        )
        port, status, problem = 0, 0, ""
        try:
            connection.connect()
            port = connection.sock.getsockname()[1]
            connection.request(
                "POST",
                "/v1/chat/completions",
                json.dumps(document),
                {"Authorization": f"Bearer {self._traffic.key}"},
            )
            response = connection.getresponse()
            status = response.status
            if status != 200:
                problem = f"{status}: {response.read()[:300]!r}"
            elif self._is_stream:
                problem = self._check_events(response, expected)
            else:
                message = json.loads(response.read())["choices"][0]["message"]["content"]
                problem = "" if message.split() == expected else f"mixed up: {message[:200]}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = f"{'cut' if self.is_amid else 'no answer'}: {error!r}"
        finally:
            connection.close()
        return Answer(nonce, self._instance, port, status, problem)

    def _check_events(self, response: http.client.HTTPResponse, expected: Sequence[str]) -> str:
        """Read the stream to its end; return the problem with it, or ""."""
        words = []
        has_ended = False
        for line in response:
            if has_ended and line.strip():
                return f"more after the end: {line[:200]!r}"
            if line.startswith(b"data: [DONE]"):
                has_ended = True
            elif line.startswith(b"data: "):
                event: dict[str, Any] = json.loads(line[6:])
                if "error" in event:
                    return f"cut: {event['error']}"
                words.append(event["choices"][0]["delta"]["content"].strip())
                self.is_amid = True
        if words != expected:
            return f"mixed up, or cut: {len(words)} tokens of {len(expected)}, {words[-3:]}"
        return "" if has_ended else "cut: no end mark"


class Manager(threading.Thread):
    """Looks at the instances, and makes and revokes a key, all the while."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(name="manager", daemon=True)
        self._traffic = traffic
        self.calls = 0
        self.problems: list[str] = []

    def run(self) -> None:
        while not self._traffic.is_over.wait(0.5):
            self._call("GET", "/api/v1/instances")
            document = {"name": "passing", "permission_mode": "allow_all"}
            made = self._call("POST", "/api/v1/auth/keys", document)
            if made is not None:
                self._call("DELETE", f"/api/v1/auth/keys/{made['id']}")

    def _call(self, method: str, path: str, document: object = None) -> Any:
        self.calls += 1
        try:
            response = self._traffic.stack.call(method, path, document)
        except OSError as error:
            self.problems.append(f"{method} {path}: {error!r}")
            return None
        if not response.ok:
            self.problems.append(f"{method} {path}: {response.status_code} {response.text[:300]}")
            return None
        return response.json() if response.content else None


class Traffic:
    """Clients of some instances, and a manager, for as long as the ``with`` block lasts."""

    def __init__(
        self,
        stack: Stack,
        key: str,
        instances: Iterable[str],
        *,
        streams: int = 2,
        plain: int = 1,
        is_managed: bool = True,
    ) -> None:
        self.stack = stack
        self.key = key
        self.is_over = threading.Event()
        self._clients = [
            Client(self, instance, is_stream=is_stream, number=number)
            for instance in instances
            for is_stream, clients in ((True, streams), (False, plain))
            for number in range(clients)
        ]
        self._streaming = [client for client in self._clients if client._is_stream]
        self._manager = Manager(self) if is_managed else None

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        if self._manager is not None:
            self._manager.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.is_over.set()
        for thread in (*self._clients, *([self._manager] if self._manager else [])):
            thread.join(ANSWER_SECONDS + 10)
            assert not thread.is_alive() or error is not None, f"{thread.name} never ended"

    def until_streaming(self) -> None:
        """Return when half of the streaming clients, and at least one, are amid an answer.

        Not all: with answers of different lengths one is always between two of them.
        """
        until(
            lambda: sum(each.is_amid for each in self._streaming) * 2 >= len(self._streaming),
            "streams under way",
            seconds=SERVED_SECONDS,
        )

    def until_served(self, times: int = 2) -> None:
        """Return when every client has had so many whole answers from now on.

        Two: the first may have been under way already.
        """
        wanted = [(client, client.whole + times) for client in self._clients]
        until(
            lambda: all(client.whole >= whole for client, whole in wanted),
            lambda: f"every client served; {self.answers_with_problems()[-3:]}",
            seconds=SERVED_SECONDS,
        )

    @property
    def answers(self) -> list[Answer]:
        return [answer for client in self._clients for answer in list(client.answers)]

    def answers_with_problems(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.problem]

    def doubled(self) -> list[str]:
        """Requests that a backend carried out more than once, by its log."""
        executions: Counter[str] = Counter()
        for path in (self.stack.data_dir / "logs").glob("*.log"):
            if path.is_symlink():
                continue
            for line in path.read_text(errors="replace").splitlines():
                if line.startswith("nonce "):
                    executions[line] += 1
        return [nonce for nonce, number in executions.items() if number > 1]

    def counts(self, what: str) -> Counts:
        """The sums, printed for the reader of the tests' output."""
        answers, problems = self.answers, self.answers_with_problems()
        said = [f"{each.instance}: {each.problem}" for each in problems]
        said += self._manager.problems if self._manager else []
        counts = Counts(
            whole=len(answers) - len(problems),
            failed=len(problems),
            doubled=len(self.doubled()),
            management=self._manager.calls if self._manager else 0,
            management_failed=len(self._manager.problems) if self._manager else 0,
            problems=tuple(sorted(set(said))),
        )
        print(f"\n[{what}] {counts}")
        return counts
