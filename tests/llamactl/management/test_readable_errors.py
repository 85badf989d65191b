"""Errors of commands, as the shell shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management.base import CommandError
from django.db import OperationalError

from llamactl.config import AppConfig
from llamactl.core.errors import InvalidRequest
from llamactl.core.locks import Locked
from llamactl.management.readable_errors import readable_errors
from llamactl.server.child import CannotStart


@pytest.mark.parametrize(
    ("error", "text", "exit_code"),
    [
        (InvalidRequest("no node main"), "no node main", 1),
        (CannotStart("no valkey"), "no valkey", 1),
        (Locked(Path("run.lock"), 7), str(Locked(Path("run.lock"), 7)), 1),
        (OperationalError("disk full"), "the database can't be used: disk full", 1),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied", 2),
    ],
)
def test_an_expected_error_is_one_line(
    config: AppConfig, error: Exception, text: str, exit_code: int
) -> None:
    with pytest.raises(CommandError) as caught, readable_errors(config, CannotStart):
        raise error
    assert (str(caught.value), caught.value.returncode) == (text, exit_code)


def test_an_error_without_a_file_names_the_data_directory(config: AppConfig) -> None:
    with pytest.raises(CommandError, match=str(config.data_dir)), readable_errors(config):
        raise OSError(28, "No space left on device")


def test_a_defect_keeps_its_traceback(config: AppConfig) -> None:
    with pytest.raises(ZeroDivisionError), readable_errors(config):
        raise ZeroDivisionError
