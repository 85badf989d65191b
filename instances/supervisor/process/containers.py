"""Stop and removal of a backend's container.

``docker run`` passes a signal on as long as the client lives; a killed client leaves its container
behind. ``stop_container`` and ``remove_container`` block for seconds, so they are called off the
supervisor's thread.
"""

from __future__ import annotations

import logging
import os
import subprocess

from instances.backends.docker import remove_command, stop_command
from instances.backends.environment import clean_environment

logger = logging.getLogger(__name__)

DOCKER_TIMEOUT_SECONDS = 30.0


def stop_container(name: str, seconds: float) -> None:
    """Run ``docker stop``: SIGTERM, and SIGKILL after ``seconds``."""
    _run(stop_command(name, max(1, round(seconds))), seconds + DOCKER_TIMEOUT_SECONDS)


def remove_container(name: str) -> None:
    """Kill and remove the container, if there is one, so that its name is free."""
    _run(remove_command(name), DOCKER_TIMEOUT_SECONDS)


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
