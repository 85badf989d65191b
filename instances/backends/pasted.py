"""Pasted commands of any backend, in a container or not: the backend is recognised."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from instances.backends.base import Backend
from instances.backends.command_errors import WrongCommand
from instances.backends.command_line import read_words, recognises, take_environment
from instances.backends.docker import RunCommand, find_run, read_run
from instances.backends.registry import BACKENDS
from instances.backends.shell_words import Word
from instances.backends.values import shown

_ANY_ADDRESS = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104 - recognised, not bound


@dataclass(frozen=True)
class PastedCommand:
    """A pasted command: its backend, and the options of an instance that does the same."""

    backend: Backend
    backend_options: dict[str, object]
    environment: dict[str, str] = field(default_factory=dict)
    docker_image: str = ""
    """The image of a pasted ``docker run``; empty without docker."""
    docker_args: str = ""

    def to_document(self) -> dict[str, object]:
        """Return the options of an instance."""
        document: dict[str, object] = {
            "backend_type": self.backend.type,
            "backend_options": self.backend_options,
        }
        if self.environment:
            document["environment"] = self.environment
        if self.docker_image:
            document |= {"docker_enabled": True, "docker_image": self.docker_image}
        if self.docker_args:
            document["docker_args"] = self.docker_args
        return document


def parse_pasted(command: str, chosen: Backend) -> PastedCommand:
    """Read a pasted command; of a program of another backend, as that backend's.

    Raises CommandError.
    """
    words = read_words(command)
    rest: deque[str] = deque(words)
    environment = take_environment(rest)
    program = words[len(words) - len(rest) :]
    run = find_run(program)
    if run is not None:
        return _parse_container(read_run(run), environment, chosen)
    backend = _recognised(program, chosen)
    parsed = backend.parse_words(words)
    return PastedCommand(backend, parsed.backend_options, parsed.environment)


def _recognised(words: list[Word], chosen: Backend) -> Backend:
    """Return the backend of the program that the words begin with, else ``chosen``."""
    others = [backend for backend in BACKENDS.values() if backend is not chosen]
    candidates = (chosen, *others)
    return next((each for each in candidates if recognises(words, each.programs)), chosen)


def _parse_container(
    run: RunCommand, environment: dict[str, str], chosen: Backend
) -> PastedCommand:
    backend = _of_image(run.image, chosen)
    words = run.words
    if words and words[0] in backend.image_commands:
        words = words[1:]
    parsed = backend.parse_words(words) if words else None
    options = dict(parsed.backend_options) if parsed is not None else {}
    # The container shares the host's network here, and llamactl chooses the port.
    options.pop("port", None)
    if options.get("host") in _ANY_ADDRESS:
        del options["host"]
    inside = parsed.environment if parsed is not None else {}
    return PastedCommand(
        backend,
        options,
        {**environment, **run.environment, **inside},
        docker_image=run.image,
        docker_args=run.args,
    )


def _of_image(image: str, chosen: Backend) -> Backend:
    others = [backend for backend in BACKENDS.values() if backend is not chosen]
    for backend in (chosen, *others):
        if any(word in image.lower() for word in backend.image_words):
            return backend
    if chosen.image_words:
        return chosen  # an image of the operator's own
    raise WrongCommand(f"{chosen.title} does not run in a container, got the image {shown(image)}")
