"""``python -m bench``: measure what the proxy costs, print it, and write it down.

Exit status: 0 measured; 1 something did not start or did not answer; 2 wrong usage; 130 or 143
ended by a signal. Everything that was started is stopped again in each case.
"""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from types import FrameType

from bench import machine
from bench.command_line import Options, parse
from bench.report import facts, scenario_report, write_json
from bench.runs import Run, run_in_turn
from bench.stack import INSTANCE, llamactl_system
from bench.summary import summarise
from bench.systems import System, direct_system, running_system


def gather(options: Options, stack: ExitStack) -> list[System]:
    """Bring up what is compared, the direct system first; `stack` takes it down again."""
    direct = stack.enter_context(direct_system(options.backend_port, model=INSTANCE))
    systems = [direct]
    if options.base_url:
        systems.append(
            running_system("given", options.base_url, options.key, options.model, backend=())
        )
    elif options.with_llamactl:
        print("starting llamactl …", flush=True)
        systems.append(stack.enter_context(llamactl_system("llamactl", options.settings)))
    backend = direct.processes["backend"]
    for also in options.also:
        systems.append(running_system(also.name, also.base_url, also.key, also.model, backend))
    return systems


def measure(options: Options) -> None:
    """Everything that the options ask for. Raises RuntimeError when a system does not come up."""
    description = machine.describe()
    print(facts(description), end="\n\n", flush=True)
    with ExitStack() as stack:
        systems = gather(options, stack)
        runs: list[Run] = []
        for scenario in options.scenarios:
            of_scenario = list(
                run_in_turn(
                    scenario,
                    systems,
                    rounds=options.rounds,
                    seconds=options.seconds,
                    warm_up_seconds=options.warm_up_seconds,
                )
            )
            runs += of_scenario
            for summaries in summarise(of_scenario):
                print(scenario_report(summaries), end="\n\n", flush=True)
    print(f"medians of {options.rounds} rounds of {options.seconds:g} s, the systems in turn")
    print(f"all figures: {write_json(description, runs, summarise(runs), options.output)}")


def end_by_signal(signum: int, _frame: FrameType | None) -> None:
    """Leave through every ``finally``; a second signal does not disturb the cleaning up."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, already_ending)
    print("stopping …", file=sys.stderr, flush=True)
    raise SystemExit(128 + signum)


def already_ending(_signum: int, _frame: FrameType | None) -> None:
    """Not SIG_IGN, which the programs that we start would inherit."""


def main() -> int:
    """The program; returns its exit status."""
    options = parse(sys.argv[1:])
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, end_by_signal)
    try:
        measure(options)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
