"""The knobs of the fake backend: how the process misbehaves.

A knob is an environment variable, or a part of the model's name in lower case without ``FAKE_``:
``--model "fake?start_seconds=2&exit_code=3"``.

FAKE_BIND_SECONDS       seconds until the program listens
FAKE_UNBIND             closes the listener at SIGUSR1, and lives on
FAKE_START_SECONDS      seconds of listening for which ``/health`` answers 503
FAKE_NEVER_HEALTHY      ``/health`` answers 503 for ever
FAKE_HANG               connections are accepted, and nothing is answered
FAKE_NO_HEALTH          ``/health`` is 404
FAKE_MODELS_NEED_KEY    ``/v1/models`` asks for the key too
FAKE_EXIT_CODE          ends with this code, at once or after FAKE_CRASH_AFTER
FAKE_CRASH_AFTER        ends so many seconds after it began to listen (code 1 unless told)
FAKE_CRASH_SIGNAL       ends by this signal number instead of an exit code
FAKE_IGNORE_SIGINT      SIGINT does nothing
FAKE_IGNORE_SIGTERM     SIGTERM does nothing
FAKE_CHILD              ``group``: starts a child; ``session``: a child in a session of its own;
                        ``wiped``: one that has overwritten its environment, too;
                        ``daemon``: a ``wiped`` one that has forked twice, so that init adopts it;
                        ``listener``: a ``daemon`` that keeps the listening socket open
FAKE_LOG_LINES          prints so many numbered lines
FAKE_PRINT              prints this text
FAKE_PAGE               sends this file as its web UI, with headers that act on the origin
"""

from __future__ import annotations

from collections.abc import Mapping


class Knobs:
    """The values of the environment and of the model's name."""

    def __init__(self, model: str = "", environment: Mapping[str, str] | None = None) -> None:
        self._values = {
            name.removeprefix("FAKE_").lower(): value
            for name, value in (environment or {}).items()
            if name.startswith("FAKE_")
        }
        for pair in model.partition("?")[2].split("&"):
            name, equals, value = pair.partition("=")
            if name:
                self._values[name.lower()] = value if equals else "1"

    def __contains__(self, name: str) -> bool:
        return self._values.get(name, "0") not in ("", "0")

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, default)

    def number(self, name: str, default: float = 0.0) -> float:
        return float(self._values.get(name, default))
