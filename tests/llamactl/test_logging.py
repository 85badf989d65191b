from __future__ import annotations

import logging
import sys

import pytest
from django.core.exceptions import DisallowedHost
from django.test import Client

from llamactl.logging import LineFormatter


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
