"""Log lines: their format (time, level, logger, message, then instance, node and request), and the
suppression of repetitions.
"""

from __future__ import annotations

import copy
import logging
import re

from billiard.exceptions import RestartFreqExceeded

from llamactl.core.database_errors import to_unavailable
from llamactl.core.repeated_warning import Repetition
from llamactl.core.request_id import current_request

_REFUSALS = "django.security."
"""Django's loggers of bad requests; their records carry tracebacks."""

MOST_MESSAGES = 200
"""Messages that a filter remembers; the one that came longest ago is forgotten for another."""


class LineFormatter(logging.Formatter):
    """Appends ``instance=``, ``node=``, ``request_id=`` and ``client_request_id=``.

    Of the record, else of the request that the current task works on.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        if record.name.startswith(_REFUSALS) or isinstance(error, RestartFreqExceeded):
            # The message is enough, and any client can cause one, or any broker that refuses
            # commands: no traceback of fifty lines.
            record = copy.copy(record)
            record.exc_info = record.exc_text = None
        elif to_unavailable(error):
            # A full disk fails each request: a line each, with the database's own words.
            record = copy.copy(record)
            record.exc_info = record.exc_text = None
            record.msg, record.args = f"{record.getMessage()} ({error})", ()
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = super().formatMessage(record)
        request = current_request.get()
        fields = {} if request is None else request.log_fields()
        for name in ("instance", "node", "request_id", "client_request_id"):
            value = getattr(record, name, None) or fields.get(name)
            if value:
                line += f" {name}={value}"
        return line


class RepetitionFilter(logging.Filter):
    """Passes a message once a minute, then with the number of its repetitions.

    For loggers of failures that last: while the broker refuses commands, Celery logs six errors and
    a traceback each second, perhaps onto the very disk that is full. Messages that differ in
    their numbers alone are repetitions.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[int, str], Repetition] = {}
        """Level and text of a message → its repetitions."""

    def forget(self) -> None:
        """Take the next message of each text for its first."""
        self._known.clear()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        key = record.levelno, re.sub(r"\d+", "#", text)
        repetition = self._known.pop(key, None) or Repetition()
        if len(self._known) >= MOST_MESSAGES:
            del self._known[next(iter(self._known))]
        self._known[key] = repetition
        line = repetition.passed(text, record.created)
        if line is None:
            return False
        record.msg, record.args = line, ()
        return True
