"""Commands that run a backend in a docker container."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from instances.backends.command_errors import CommandSyntaxError, WrongArity, WrongCommand
from instances.backends.shell_words import CHOSEN_PORT, DASHES, TO_HYPHEN, Word

CONTAINER_PREFIX = "llamactl"
INSTALLATION_LABEL = "llamactl.installation"
"""Label of llamactl's containers, by which they are identified: a name proves nothing."""
INSTANCE_LABEL = "llamactl.instance"


def container_name(installation: str, instance_name: str, port: int) -> str:
    """Name a container; several installations may share a docker daemon."""
    return f"{CONTAINER_PREFIX}-{installation}-{instance_name}-{port}"


def unlabelled_name(instance_name: str, port: int) -> str:
    """Return the container's name as llamactl 0.1 made it, without labels."""
    return f"{CONTAINER_PREFIX}-{instance_name}-{port}"


def labels_of(installation: str, instance_name: str) -> dict[str, str]:
    """Return the labels of an instance's container."""
    return {INSTALLATION_LABEL: installation, INSTANCE_LABEL: instance_name}


def run_command(
    docker: str,
    *,
    docker_args: Sequence[str],
    variables: Iterable[str],
    name: str,
    labels: Mapping[str, str],
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
    for label, value in labels.items():  # of equal labels the last counts
        options += ["--label", f"{label}={value}"]
    return [docker, *options, "--name", name, image, *args]


def inspect_command(name: str, docker: str = "docker") -> list[str]:
    """Build the command that prints a container's id, and the label of its installation if any."""
    template = f'{{{{.Id}}}} {{{{index .Config.Labels "{INSTALLATION_LABEL}"}}}}'
    return [docker, "inspect", "--type", "container", "--format", template, name]


def stop_command(container: str, seconds: int, docker: str = "docker") -> list[str]:
    """Build the command that stops a container: SIGTERM, and SIGKILL after ``seconds``."""
    return [docker, "stop", "-t", str(seconds), container]


def remove_command(container: str, docker: str = "docker") -> list[str]:
    """Build the command that removes a container, so that its name is free again."""
    return [docker, "rm", "-f", container]


_PROGRAMS = frozenset({"docker", "podman", "nerdctl"})
_BARE_FLAGS = frozenset(
    [
        "--rm",
        "--detach",
        "--interactive",
        "--tty",
        "--init",
        "--privileged",
        "--publish-all",
        "--read-only",
        "--quiet",
        "--no-healthcheck",
        "--oom-kill-disable",
        "--sig-proxy",
        "--disable-content-trust",
    ]
)
_BARE_LETTERS = frozenset("ditPq")
_LONG_FLAG = re.compile(r"[a-z][a-z0-9-]+", re.ASCII)
_OURS = frozenset(
    [
        "--rm",
        "--detach",
        "--interactive",
        "--tty",
        "--publish-all",
        "--quiet",
        "--publish",
        "-p",
        "--expose",
        "--name",
        "--restart",
        "--network",
        "--net",
        "--hostname",
        "-h",
        "--pull",
        "--cidfile",
        "--label",
        "-l",
        "--health-cmd",
    ]
)
"""Arguments that llamactl gives itself, or that make no sense for a container of its own."""


@dataclass(frozen=True)
class RunCommand:
    """A pasted ``docker run``."""

    image: str
    words: list[Word]
    """The words after the image."""
    environment: dict[str, str]
    args: str
    """The other arguments, quoted for a shell."""


def find_run(words: Sequence[Word]) -> list[Word] | None:
    """Return the words after ``docker run``; None for another program. Raises WrongCommand."""
    if not words or words[0].rpartition("/")[2] not in _PROGRAMS:
        return None
    rest = words[2:] if words[1:2] == ["container"] else words[1:]
    if not rest or rest[0] not in ("run", "create"):
        raise WrongCommand(f"{' '.join(words[:3])[:80]!r} starts no container; expected docker run")
    return list(rest[1:])


def read_run(words: Sequence[Word]) -> RunCommand:
    """Read the arguments of ``docker run``. Raises CommandError."""
    left = list(words)
    environment: dict[str, str] = {}
    kept: list[str] = []
    while left and (word := _typed(left[0])).startswith("-"):
        del left[0]
        flag, equals, value = word.partition("=")
        if flag in _BARE_FLAGS or (not flag.startswith("--") and set(flag[1:]) <= _BARE_LETTERS):
            kept += [] if flag in _OURS or not flag.startswith("--") else [flag]
            continue
        if not equals:
            if not left:
                raise WrongArity(f"{flag} takes a value, but the command ends there")
            value = str(left.pop(0))
        if flag in ("-e", "--env"):
            name, _, text = value.partition("=")
            if "=" in value:
                environment[name] = text
            else:
                kept += ["-e", name]
        elif flag not in _OURS:
            kept += [flag, value]
    if not left:
        raise WrongCommand("the docker command names no image")
    if any(CHOSEN_PORT in word for word in [*kept, left[0], *environment.values()]):
        raise CommandSyntaxError("${PORT} can't be among docker's arguments; leave it out")
    return RunCommand(str(left[0]), left[1:], environment, shlex.join(kept))


def _typed(word: Word) -> str:
    """Return a word with hyphens for the dashes that a web page made of a flag's."""
    if not word.is_bare or word[:1] not in DASHES or word[:1] == "":
        return str(word)
    name, equals, value = word.partition("=")
    core = name.lstrip(DASHES).translate(TO_HYPHEN)
    is_long = _LONG_FLAG.fullmatch(core) is not None and not set(core) <= _BARE_LETTERS
    return f"{'--' if is_long else '-'}{core}{equals}{value}"


def further_args(configured: Sequence[str], text: str) -> list[str]:
    """Return the words of ``docker_args`` that the configured arguments do not have already.

    Docker takes some flags once, such as ``--gpus``.
    """
    words = shlex.split(text)
    pairs = set(itertools.pairwise(configured))
    further: list[str] = []
    while words:
        flag = words.pop(0)
        if flag in _BARE_FLAGS or "=" in flag or not words or not flag.startswith("-"):
            further += [] if flag in configured else [flag]
        elif (flag, value := words.pop(0)) not in pairs:
            further += [flag, value]
    return further
