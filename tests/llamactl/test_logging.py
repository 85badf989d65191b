from __future__ import annotations

import logging
import sys

import pytest
from billiard.exceptions import RestartFreqExceeded
from django.core.exceptions import DisallowedHost
from django.test import Client

from llamactl.logging import MOST_MESSAGES, LineFormatter, RepetitionFilter


def record_of(logger: str) -> logging.LogRecord:
    try:
        raise DisallowedHost("no such host")
    except DisallowedHost as error:
        return logging.LogRecord(logger, logging.ERROR, "x", 1, str(error), (), sys.exc_info())


def test_a_fault_of_ours_is_logged_with_its_traceback() -> None:
    assert "Traceback" in LineFormatter().format(record_of("django.request"))


def test_nonsense_from_outside_is_one_line_in_the_log() -> None:
    # It should not be fifty, which anybody could fill a disk with.
    record = record_of("django.security.DisallowedHost")
    assert LineFormatter().format(record).count("\n") == 0
    # It should leave the record as it is for other handlers.
    assert record.exc_info


def test_a_hostile_host_is_refused_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    response = Client().get("/docs", headers={"host": "x,evil\x1b[31m"})
    assert response.status_code == 400
    (record,) = [it for it in caplog.records if it.name.startswith("django.security")]
    line = LineFormatter().format(record)
    assert line.isprintable()


def test_a_broker_that_refuses_commands_is_one_line_in_the_log() -> None:
    try:
        raise RestartFreqExceeded("5 in 1s")
    except RestartFreqExceeded:
        info = sys.exc_info()
    name, text = "celery.worker.consumer.consumer", "Frequent restarts detected"
    record = logging.LogRecord(name, logging.CRITICAL, "x", 1, text, (), info)
    assert LineFormatter().format(record).endswith("consumer Frequent restarts detected")


def failure(text: str, *args: object, at: float = 0.0) -> logging.LogRecord:
    record = logging.LogRecord("x", logging.WARNING, "x", 1, text, args, None)
    record.created = 1_000_000.0 + at
    return record


def passed(filter_: RepetitionFilter, record: logging.LogRecord) -> str | None:
    return record.getMessage() if filter_.filter(record) else None


def test_a_failure_that_lasts_is_logged_once_a_minute_with_its_repetitions() -> None:
    filter_ = RepetitionFilter()
    assert passed(filter_, failure("no broker (%d/6)", 1)) == "no broker (1/6)"
    for number in range(2, 5):
        assert passed(filter_, failure("no broker (%d/6)", number, at=number)) is None
    assert passed(filter_, failure("no broker (5/6)", at=60)) == "no broker (5/6) (3 times more)"
    assert passed(filter_, failure("no broker (6/6)", at=61)) is None
    # Another message should not wait.
    assert passed(filter_, failure("no database", at=61)) == "no database"


def test_a_filter_remembers_a_bounded_number_of_messages() -> None:
    filter_ = RepetitionFilter()
    for number in range(3 * MOST_MESSAGES):
        letters = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        assert passed(filter_, failure(letters)) == letters
    assert passed(filter_, failure("a")) == "a"
