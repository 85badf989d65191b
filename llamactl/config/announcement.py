"""Announcement of the configuration's warnings at the start, once for a tree of processes."""

from __future__ import annotations

import os
from collections.abc import Callable

from llamactl.config.app_config import AppConfig
from llamactl.config.places import place_warnings
from llamactl.config.variables import ANNOUNCED_VARIABLE


def announce_warnings(config: AppConfig, print_line: Callable[[str], object]) -> None:
    """Print each warning, unless a process above has printed them.

    Processes that this one starts inherit the mark: ``manage.py run`` speaks for worker and web,
    while a worker under a service manager of its own speaks for itself.
    """
    if os.environ.get(ANNOUNCED_VARIABLE):
        return
    os.environ[ANNOUNCED_VARIABLE] = "1"
    for warning in (*config.config_warnings, *place_warnings(config)):
        print_line(f"warning: {warning}")
