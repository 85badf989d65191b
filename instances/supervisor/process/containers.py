"""Stop and removal of a backend's container.

``docker run`` passes a signal on as long as the client lives; a killed client leaves its container
behind. A container is stopped or removed by its id, and only after docker has shown the label of
this installation: another program may give a container any name, and a process any name of a
container in its environment. All functions block for seconds, so they are called off the
supervisor's thread.
"""

from __future__ import annotations

import logging
import subprocess

from instances.backends.docker import inspect_command, remove_command, stop_command
from instances.backends.environment import backend_environment
from instances.installation import installation_id

logger = logging.getLogger(__name__)

DOCKER_TIMEOUT_SECONDS = 30.0


def stop_container(name: str, seconds: float) -> None:
    """Run ``docker stop`` on llamactl's container of this name."""
    if container := _own(name):
        stop_by_id(container, seconds)


def remove_container(name: str) -> None:
    """Kill and remove llamactl's container of this name, if there is one."""
    if container := _own(name):
        remove_by_id(container)


def stop_by_id(container: str, seconds: float) -> None:
    """Run ``docker stop``: SIGTERM, and SIGKILL after ``seconds``."""
    command = stop_command(container, max(1, round(seconds)))
    _run(command, seconds + DOCKER_TIMEOUT_SECONDS)


def remove_by_id(container: str) -> None:
    """Kill and remove a container; does nothing if it is gone."""
    _run(remove_command(container), DOCKER_TIMEOUT_SECONDS)


def unlabelled(name: str) -> str | None:
    """Return the id of the container of this name, if it carries no label of any llamactl."""
    found = _inspect(name)
    return found[0] if len(found) == 1 else None


def _own(name: str) -> str | None:
    """Return the id of the container of this name, if it carries our label."""
    found = _inspect(name)
    if found[1:] == [installation_id()]:
        return found[0]
    if found:
        logger.warning(
            "container %s was not started by this llamactl (it lacks the label): left alone", name
        )
    return None


def _inspect(name: str) -> list[str]:
    """Return a container's id, and the label of its installation if any; empty without one."""
    return _run(inspect_command(name), DOCKER_TIMEOUT_SECONDS).split()


def _run(command: list[str], timeout_seconds: float) -> str:
    """Run a command of docker, and log its failure; returns its output."""
    try:
        done = subprocess.run(
            command,
            env=backend_environment({}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("%s: %s", " ".join(command), error)
        return ""
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "replace")
    if b"no such container" not in done.stderr.lower():
        logger.warning("%s: %s", " ".join(command), done.stderr.decode("utf-8", "replace").strip())
    return ""
