#!/usr/bin/env python
"""Django's command-line entry point."""

from __future__ import annotations

import io
import os
import signal
import sys


def main() -> None:
    """Run a command; end without a traceback at Ctrl-C and at a closed output (``… | head``)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without UTF-8 (LC_ALL=POSIX) can't show each path, but it shows the rest.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            run_command()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        # A start takes seconds before "run" has handlers of its own. Its end is no error for make.
        sys.exit(0 if sys.argv[1:2] == ["run"] else 128 + signal.SIGINT)
    except BrokenPipeError:
        # The interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def run_command() -> None:
    if "_LLAMACTL_FOREGROUND_FD" in os.environ:
        # "run" has prepared the start, and has replaced itself by a program without Django.
        from llamactl.server.foreground import main as foreground

        foreground()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llamactl.settings")
    if sys.argv[1:2] == ["check_config"]:
        # check_config explains a configuration with which Django's settings may fail to load.
        from instances.backends.registry import config_sections
        from llamactl.config.explain import main as check_config

        sys.exit(check_config(sys.argv[2:], config_sections()))
    if sys.argv[1:2] == ["doctor"]:
        # As above; and settings create secrets, which the doctor must not do before the first run.
        from llamactl.doctor.command import main as doctor

        sys.exit(doctor(sys.argv[2:]))
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
