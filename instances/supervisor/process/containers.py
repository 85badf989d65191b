"""How is a container ended, when its client's process alone can't be relied on to end it?

A signal to ``docker run`` is passed on as long as the client lives; a client that is killed leaves
its container behind. These calls block for seconds and go off the supervisor's thread.
"""

from __future__ import annotations

import logging
import os
import subprocess

from instances.backends import remove_command, stop_command
from instances.backends.environment import clean_environment

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0


def stop_container(name: str, seconds: float) -> None:
    """Ask docker to stop it: SIGTERM, and SIGKILL after ``seconds``."""
    _run(stop_command(name, max(1, round(seconds))), seconds + PATIENCE_SECONDS)


def remove_container(name: str) -> None:
    """Kill and remove what may be left of it, so that nothing runs on and its name is free."""
    _run(remove_command(name), PATIENCE_SECONDS)


def _run(command: list[str], timeout_seconds: float) -> None:
    try:
        done = subprocess.run(
            command,
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout_seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("%s: %s", " ".join(command), error)
        return
    if done.returncode != 0 and b"No such container" not in done.stderr:
        logger.warning("%s: %s", " ".join(command), done.stderr.decode("utf-8", "replace").strip())
