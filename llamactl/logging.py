"""How a log line looks: time, level, logger, message, and which instance or node it is about."""

from __future__ import annotations

import copy
import logging

_REFUSALS = "django.security."
"""Django's loggers for what is wrong with a request; each of them brings a traceback."""


class LineFormatter(logging.Formatter):
    """Appends ``instance=``, ``node=`` and ``request_id=`` where a record carries them."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        if record.name.startswith(_REFUSALS):
            # The message says it all, and anybody can cause one: no fifty lines for each.
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
