from __future__ import annotations

import logging

import pytest

from llamactl.core.repeated_warning import RepeatedWarning

logger = logging.getLogger(__name__)


def test_a_failure_that_lasts_is_logged_once_a_minute_and_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 10.0
    warning = RepeatedWarning(logger, "change events", clock=lambda: now)
    warning.succeeded()
    for second in range(70):
        now = 10.0 + second
        warning.failed("none: %s %d", "no broker", second)
    for _ in range(2):
        warning.succeeded()
    assert caplog.messages == [
        "change events: none: no broker 0",
        "change events: none: no broker 60 (59 times more)",
        "change events: works again after 69 s, 70 failures",
    ]


def test_the_next_failure_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    warning = RepeatedWarning(logger, "events")
    for _ in range(2):
        warning.failed("none")
        warning.succeeded()
    assert caplog.messages.count("events: none") == 2
    assert caplog.messages.count("events: works again after 0 s, 1 failure") == 2


def test_the_traceback_of_the_first_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    warning = RepeatedWarning(logger, "table")
    for _ in range(2):
        try:
            raise LookupError("x")
        except LookupError:
            warning.failed("not read", exc_info=True)
    assert caplog.text.count("LookupError: x") == 1
