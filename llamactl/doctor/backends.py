"""Check of the backends' programs: found, runnable, and of which version."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from instances.backends.base import LOOPBACK
from instances.backends.registry import BACKENDS
from instances.launch import ExecutableNotFound, build_launch
from instances.options import InstanceOptions
from llamactl.config import AppConfig
from llamactl.doctor.diagnosis import Diagnosis, note, ok, problem

DOCKER_SECONDS = 5.0


@dataclass(frozen=True)
class ProgramFacts:
    title: str
    program: str = ""
    """The path; empty if no program was found."""
    missing: str = ""
    """Why no program was found, with the remedy."""
    is_embedded: bool = False
    is_configured: bool = False
    """Whether the config names the program, so that its absence is an error."""
    is_used: bool = False
    """Whether an instance needs the program."""
    version: str = ""
    failure: str = ""
    """The error of ``--version``, or why docker can't be used."""


def collect(
    config: AppConfig,
    used: set[str],
    version_of: Callable[[str], str] | None = None,
) -> Iterator[ProgramFacts]:
    """Collect the facts of each backend type.

    ``used`` are the backend types of the instances. ``version_of`` returns a program's version, and
    raises an error with the reason if there is none.
    """
    for kind, backend in BACKENDS.items():
        section = backend.config_section(config)
        uses_docker = section.docker is not None and section.docker.enabled
        named = uses_docker or section.command != backend.default_command
        facts = ProgramFacts(backend.title, is_configured=named, is_used=kind in used)
        try:
            launch = build_launch(
                instance_name="doctor",
                options=InstanceOptions.parse({"backend_type": kind}, config),
                config=section,
                host=LOOPBACK,
                port=config.instances.port_range[0],
                api_key="",
            )
        except ExecutableNotFound as error:
            yield replace(facts, missing=error.details)
            continue
        bundled = backend.bundled_command
        is_embedded = bundled is not None and launch.argv[: len(bundled)] == bundled
        facts = replace(facts, program=launch.argv[0], is_embedded=is_embedded)
        if uses_docker:
            yield replace(facts, failure=_docker_failure())
        elif version_of is None:
            yield facts
        else:
            try:
                yield replace(facts, version=first_line(version_of(kind)))
            except Exception as error:
                yield replace(facts, failure=str(error)[:300])


def diagnose(facts: ProgramFacts) -> Iterator[Diagnosis]:
    if facts.missing:
        if facts.is_configured or facts.is_used:
            yield problem(facts.title, "the program is missing", facts.missing)
        else:
            yield note(facts.title, "not installed; no instance needs it")
        return
    where = "the server that comes with llamactl (CPU)" if facts.is_embedded else facts.program
    if facts.failure:
        yield problem(
            facts.title,
            f"{where} does not work: {facts.failure}",
            "run the program by hand, as the user that runs llamactl",
        )
    else:
        yield ok(facts.title, where + (f", {facts.version}" if facts.version else ""))


def first_line(text: str) -> str:
    """Pick the line with the version; libraries may print other lines before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    with_version = [line for line in lines if "version" in line.lower()]
    return (with_version or lines or [""])[0][:100]


def _docker_failure() -> str:
    """Ask the docker daemon; "" if it answers."""
    docker = shutil.which("docker") or "docker"
    try:
        done = subprocess.run(
            [docker, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=DOCKER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"docker does not answer ({type(error).__name__})"
    return "" if done.returncode == 0 else done.stderr.strip()[:200]
