"""Commands that run a backend in a docker container."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CONTAINER_PREFIX = "llamactl"


def container_name(instance_name: str, port: int) -> str:
    """Name a container; with the port, since several llamactl may share a docker daemon."""
    return f"{CONTAINER_PREFIX}-{instance_name}-{port}"


def run_command(
    docker: str,
    *,
    docker_args: Sequence[str],
    variables: Iterable[str],
    name: str,
    image: str,
    args: Sequence[str],
) -> list[str]:
    """Build the ``docker run`` of a backend.

    ``docker_args`` are the config's, with ``run`` in front as in the seed. ``variables`` are names
    only: docker takes the values from its own environment, so no argument holds a secret.
    """
    options = list(docker_args)
    if "run" not in options[:1]:
        options.insert(0, "run")
    for variable in sorted(variables):
        options += ["-e", variable]
    return [docker, *options, "--name", name, image, *args]


def stop_command(name: str, seconds: int, docker: str = "docker") -> list[str]:
    """Build the command that stops a container: SIGTERM, and SIGKILL after ``seconds``."""
    return [docker, "stop", "-t", str(seconds), name]


def remove_command(name: str, docker: str = "docker") -> list[str]:
    """Build the command that removes a stopped container, so that its name is free again."""
    return [docker, "rm", "-f", name]
