"""``python -m bench.servers``: llamactl's application under several ASGI servers.

One llamactl runs (broker, worker, an instance); beside its own web process each server serves the
same ``llamactl.asgi:application`` in one process, and gets the same load, in turn. Access logs are
off everywhere. A missing feature (a lifespan, without which the garbage collector's thresholds are
not set) is part of the comparison.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import machine, matrix
from bench.processes import allow_many_files, listeners, tree
from bench.programs import running_program
from bench.report import RESULTS, facts, scenario_report, write_json
from bench.runs import Run, run_in_turn
from bench.signals import end_in_order
from bench.stack import INSTANCE, REPOSITORY, START_SECONDS, Stack, groups, llamactl_stack
from bench.summary import summarise, to_documents
from bench.systems import System, await_answer, direct_system, free_port

APPLICATION = "llamactl.asgi:application"
OURS = "uvicorn, our protocol class"
SCENARIOS = (matrix.requests_of(64, subject="servers"), matrix.streams_of(200))
WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Server:
    """A way to serve the application: its command, ``{port}`` filled in."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def _uvicorn(name: str, *flags: str) -> Server:
    argv = (sys.executable, "-m", "uvicorn", APPLICATION, "--host", "127.0.0.1")
    quiet = ("--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "75")
    return Server(f"uvicorn, {name}", (*argv, "--port", "{port}", *quiet, *flags))


def _gunicorn(name: str, worker: str) -> Server:
    argv = (sys.executable, "-m", "gunicorn", APPLICATION, "-k", worker, "-w", "1")
    options = ("-b", "127.0.0.1:{port}", "--keep-alive", "75", "--log-level", "warning")
    return Server(f"gunicorn, {name}", (*argv, *options))


def _granian(venv: Path) -> Server:
    """From a venv of its own, with the packages of ours behind its own."""
    argv = (str(venv / "bin" / "granian"), "--interface", "asgi", "--loop", "uvloop")
    options = ("--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning", APPLICATION)
    packages = [part for part in sys.path if part.endswith("site-packages")]
    path = os.pathsep.join([str(REPOSITORY), *packages])
    return Server("granian", (*argv, *options), {"PYTHONPATH": path})


def servers(granian_venv: Path) -> list[Server]:
    """All that are installed; ours is llamactl's own web process and not among them."""
    found = [
        _uvicorn("uvloop, httptools", "--loop", "uvloop", "--http", "httptools"),
        _uvicorn("asyncio, httptools", "--loop", "asyncio", "--http", "httptools"),
        _uvicorn("uvloop, h11", "--loop", "uvloop", "--http", "h11"),
        _gunicorn("its asgi worker", "asgi"),
        _gunicorn("uvicorn's worker", "uvicorn_worker.UvicornWorker"),
        Server(
            "daphne",
            (
                *(sys.executable, "-m", "daphne", "-v", "0", "-b", "127.0.0.1", "-p", "{port}"),
                APPLICATION,
            ),
        ),
    ]
    if (granian_venv / "bin" / "granian").exists():
        found.append(_granian(granian_venv))
    else:
        print(f"left out: granian is not in {granian_venv}; `make bench-granian` installs it")
    return found


@contextmanager
def served(server: Server, stack: Stack, like: System) -> Iterator[System]:
    """One more web process of this llamactl, by that server."""
    port = free_port()
    directory = stack.directory / f"server-{port}"
    directory.mkdir()
    argv = [part.format(port=port) for part in server.argv]
    environment = {**stack.environment, **server.environment}
    with running_program(
        argv, environment, directory, port, start_seconds=START_SECONDS
    ) as process:
        system = replace(like, name=server.name, base_url=f"http://127.0.0.1:{port}")
        await_answer(system, timeout_seconds=START_SECONDS)
        yield replace(system, processes={**like.processes, "proxy": tree(process)})


def gather(chosen: Sequence[Server], resources: ExitStack) -> list[System]:
    """Everything that is compared."""
    direct = resources.enter_context(direct_system(0, model=INSTANCE))
    stack = resources.enter_context(llamactl_stack({}))
    stack.api.create_instance(INSTANCE, stack.command())
    key = stack.api.create_inference_key("bench")
    backend_port = stack.api.start_instance(INSTANCE, timeout_seconds=START_SECONDS)
    stack.seen.update(tree(stack.root))
    known = groups(stack.root, stack.port, backend_port)
    ours = System(OURS, stack.base_url, (key,), INSTANCE, known)
    await_answer(ours, timeout_seconds=START_SECONDS)
    like = replace(ours, processes={"backend": listeners(backend_port)})
    systems = [direct, ours]
    for server in chosen:
        print(f"starting {server.name} …", flush=True)
        systems.append(resources.enter_context(served(server, stack, like)))
    return systems


def measure(options: argparse.Namespace, chosen: Sequence[Server]) -> list[Run]:
    """All servers in turn. Raises RuntimeError when one does not come up."""
    runs: list[Run] = []
    with ExitStack() as resources:
        systems = gather(chosen, resources)
        for scenario in SCENARIOS:
            of_scenario = list(
                run_in_turn(
                    scenario,
                    systems,
                    rounds=options.rounds,
                    seconds=options.seconds,
                    warm_up_seconds=WARM_UP_SECONDS,
                    rate_of=lambda _name: 0.0,
                )
            )
            runs += of_scenario
            [summaries] = summarise(of_scenario)
            print(scenario_report(summaries), end="\n\n", flush=True)
    return runs


def main() -> int:
    """The program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.servers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--server", action="append", metavar="PART", help="only names with PART")
    parser.add_argument(
        "--granian-venv", type=Path, default=Path(__file__).with_name(".granian"), metavar="DIR"
    )
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    end_in_order()
    allow_many_files()
    chosen = [
        server
        for server in servers(options.granian_venv)
        if not options.server or any(part in server.name for part in options.server)
    ]
    description = machine.describe() | {"servers": _versions()}
    print(facts(description), end="\n\n", flush=True)
    try:
        runs = measure(options, chosen)
    except (RuntimeError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    document = {
        "measured_on": description,
        "summary": to_documents(summarise(runs)),
        "runs": [asdict(run) for run in runs],
    }
    path = options.output or RESULTS / f"servers-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    print(f"all figures: {write_json(document, path)}")
    return 0


def _versions() -> str:
    found = []
    for name in ("uvicorn", "uvicorn-worker", "gunicorn", "daphne", "uvloop", "httptools", "h11"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(main())
