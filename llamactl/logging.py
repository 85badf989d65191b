"""Format of log lines: time, level, logger, message, then the instance, node and request."""

from __future__ import annotations

import copy
import logging

_REFUSALS = "django.security."
"""Django's loggers of bad requests; their records carry tracebacks."""


class LineFormatter(logging.Formatter):
    """Appends ``instance=``, ``node=`` and ``request_id=`` of a record."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        if record.name.startswith(_REFUSALS):
            # The message is enough, and any client can cause one: no traceback of fifty lines.
            record = copy.copy(record)
            record.exc_info = record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = super().formatMessage(record)
        for name in ("instance", "node", "request_id"):
            value = getattr(record, name, None)
            if value:
                line += f" {name}={value}"
        return line
