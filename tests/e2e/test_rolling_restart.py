"""A rolling restart of the web processes under gunicorn, with requests and a stream under way."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.support.services import UNITS, Services, unit
from tests.support.until import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

GUNICORN = UNITS / "gunicorn"
BOOT_SECONDS = 60
STREAM_TOKENS = 800
"""40 s at 20 tokens per second: longer than the restart, within the grace period of 60 s."""
PAUSE_SECONDS = 0.02


class Load:
    """Threads that send one request after the other; ``outcomes`` counts statuses and errors."""

    def __init__(self, services: Services, key: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url = f"{services.url}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_requests, kwargs={"keep_alive": keep_alive})
            for keep_alive in (True, True, False, False)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _send_requests(self, *, keep_alive: bool) -> None:
        session = requests.Session()
        while not self._is_over.is_set():
            try:
                response = (session if keep_alive else requests).post(
                    self._url, json={"model": "fake"}, headers=self._headers, timeout=60
                )
                self.outcomes[str(response.status_code)] += 1
            except requests.RequestException as error:
                self.outcomes[repr(error)] += 1
            self._is_over.wait(PAUSE_SECONDS)
        session.close()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    services = Services(tmp_path / "data", LLAMACTL_WEB_PROCESSES="2")
    try:
        services.launch_all(web_folder=GUNICORN)
        yield services
    finally:
        services.end_all()


def web_processes(services: Services) -> set[int]:
    return {each.pid for each in psutil.Process(services.running["web"].pid).children()}


def test_no_request_fails_in_a_rolling_restart_and_streams_end_normally(
    services: Services,
) -> None:
    services.create("fake", {"model": "fake"})
    services.call("POST", "/api/v1/instances/fake/start?wait=60")
    key = services.new_key()
    stream = requests.post(
        f"{services.url}/v1/chat/completions",
        json={"model": "fake", "stream": True, "max_tokens": STREAM_TOKENS, "tps": 20},
        headers={"Authorization": f"Bearer {key}"},
        stream=True,
        timeout=60,
    )
    events = (line for line in stream.iter_lines() if line.startswith(b"data: "))
    next(events)
    first = web_processes(services)
    assert len(first) == 2
    with Load(services, key) as load:
        until(lambda: load.outcomes["200"] > 20, "requests under way")
        services.running["web"].send_signal(signal.SIGHUP)
        until(
            lambda: len(web_processes(services) - first) == 2, "new processes", seconds=BOOT_SECONDS
        )
        before = load.outcomes["200"]
        # The old process ends with its stream, while the new ones serve all other requests.
        until(lambda: load.outcomes["200"] > before + 200, "served by the new processes")
        assert len(web_processes(services) & first) == 1
        rest = list(events)
        assert rest[-1] == b"data: [DONE]"
        assert len(rest) == STREAM_TOKENS
        until(lambda: not web_processes(services) & first, "old processes ended")
    assert set(load.outcomes) == {"200"}, load.outcomes
    assert services.end("web") == 0
    assert "Traceback" not in services.output.read_text()


def test_gunicorns_unit_agrees_with_the_units_beside_it() -> None:
    ours, web = unit("web", GUNICORN)["Service"], unit("web")["Service"]
    differing = {name for name in {*ours, *web} if ours.get(name) != web.get(name)}
    assert differing == {
        *("Type", "NotifyAccess", "ExecStartPre", "ExecStart", "ExecReload"),
        *("KillMode", "TimeoutStopSec"),
    }
