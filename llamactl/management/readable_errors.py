"""Errors of a command that an operator can mend: one line each, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from django.db import Error as DatabaseProblem

from llamactl.config import AppConfig
from llamactl.core.errors import LlamactlError
from llamactl.core.locks import Locked


@contextmanager
def readable_errors(config: AppConfig, *expected: type[Exception]) -> Iterator[None]:
    """Raise CommandError for an error of the system, and for one that says the remedy itself.

    ``expected``: further errors of the second kind. The exit code of an error of the system is 2.
    """
    readable: tuple[type[Exception], ...] = (Locked, *expected)
    try:
        yield
    except LlamactlError as error:
        raise CommandError(error.details) from error
    except readable as error:
        raise CommandError(str(error)) from error
    except DatabaseProblem as error:
        raise CommandError(f"the database can't be used: {error}".strip()) from error
    except OSError as error:
        place = error.filename or config.data_dir
        raise CommandError(f"{place}: {error.strerror}", returncode=2) from error
