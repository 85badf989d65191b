"""Foreground process of ``manage.py run``: keeps the prepared processes running, without Django.

The preparation needs Django, pydantic and Celery, about 100 MB, for as long as it lasts. So the
process replaces itself (exec) by this module afterwards: same pid, locks, sockets and terminal, a
tenth of the memory. The plan comes through a memory file that no other process can open.

Neither this module nor what it imports may import Django or the config
(``tests/llamactl/server/test_foreground.py``).
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from llamactl.core.die_with_parent import end_with_parent
from llamactl.server.child import ProcessSpec
from llamactl.server.process_group import STOP_SIGNALS, ProcessGroup, Stopped

VARIABLE = "_LLAMACTL_FOREGROUND_FD"
"""Environment variable with the descriptor of the plan; ``manage.py`` looks for it."""
MANAGE = Path(__file__).resolve().parents[2] / "manage.py"
DEMO_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """The result of the preparation; pickled."""

    stages: Sequence[Sequence[ProcessSpec]]
    locks: Sequence[int] = ()
    """Descriptors of locks that this process alone holds."""
    inherited: Sequence[int] = ()
    """Descriptors of locks that every child holds too."""
    began: float = 0.0
    """Time of the start (monotonic)."""
    banner: str = ""
    """Printed once all processes are ready, with ``SECONDS`` replaced; "": nothing."""
    demo: Sequence[str] = ()
    """Command line of the program that loads the demo's model afterwards; (): none."""
    keep_backends: bool = True
    """Whether backends are meant to outlive the worker."""

    @property
    def descriptors(self) -> set[int]:
        passed = {each for stage in self.stages for spec in stage for each in spec.pass_fds}
        return {*self.locks, *self.inherited, *passed}


SECONDS = "{seconds}"
"""Placeholder of the banner."""


def replace_process(plan: Plan) -> NoReturn:
    """Replace this process by the foreground process. Raises OSError."""
    descriptor = os.memfd_create("llamactl-plan")
    with open(descriptor, "wb", closefd=False) as file:
        pickle.dump(plan, file)
    for each in (descriptor, *plan.descriptors):
        os.set_inheritable(each, True)
    sys.stdout.flush()
    sys.stderr.flush()
    # A Ctrl-C waits until the new program has its handlers (ProcessGroup unblocks).
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        os.execve(  # noqa: S606 - no shell
            sys.executable,
            [sys.executable, str(MANAGE), *sys.argv[1:]],
            {**os.environ, VARIABLE: str(descriptor)},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main() -> NoReturn:
    """Run the plan that the preparation left; ends by SystemExit."""
    with open(int(os.environ.pop(VARIABLE)), "rb") as file:
        file.seek(0)
        plan: Plan = pickle.load(file)  # noqa: S301 - pickled by this process, before the exec
    run(plan)


def run(plan: Plan) -> NoReturn:
    """Start the processes and keep them running; ends by SystemExit."""
    for each in plan.descriptors:
        os.set_inheritable(each, False)
    group = ProcessGroup(plan.stages, print_line=print_line, inherited=plan.inherited)
    try:
        with group:
            _watch(group, plan)
    except Stopped as reason:
        if "worker" in group.killed and not plan.keep_backends:
            print_line("the worker was killed: backends may still run; the next start adopts them")
        sys.exit(group.exit_code(reason))
    raise AssertionError("the group ends by raising Stopped")


def print_line(line: str) -> None:
    """Print a line; the orderly stop must not fail when the terminal has been closed."""
    with suppress(OSError):
        print(line, flush=True)  # noqa: T201 - the command's output


def _watch(group: ProcessGroup, plan: Plan) -> None:
    """Start the processes and keep them running. Raises Stopped."""
    try:
        group.start()
        if plan.banner:
            print_line(plan.banner.replace(SECONDS, f"{time.monotonic() - plan.began:.1f}", 1))
        if plan.demo:
            with _program(plan.demo) as demo:
                while demo.poll() is None:
                    group.watch(DEMO_POLL_SECONDS)
        group.watch()
    except Stopped as reason:
        print_line(f"stopping: {reason}; a second Ctrl-C kills")
        raise


@contextmanager
def _program(argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that writes to our output and is killed at the end of the block."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # the terminal's Ctrl-C reaches this process alone
        preexec_fn=end_with_parent(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()
