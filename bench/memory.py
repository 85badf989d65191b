"""``python -m bench.memory``: memory of an idle llamactl, by process.

PSS, the proportional set size: a page that several processes share counts for each in part, so that
the sum is what the machine has to give.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import sleep

import psutil

from bench.processes import tree
from bench.report import table
from bench.stack import llamactl_stack

NAMES = {"valkey-server": "broker", "celery": "worker", "llamactl.server.web": "web"}
"""A word of a service's command line, and the service."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="idle for so long (60)")
    given = parser.parse_args(arguments)
    with llamactl_stack({}) as stack:
        sleep(given.seconds)
        found = [(_name(process), proportional_bytes(process)) for process in tree(stack.root)]
    found.append(("all", sum(size for _, size in found)))
    rows = [["process", "MB"], *([name, f"{size / 1e6:.0f}"] for name, size in found)]
    sys.stdout.write(table(rows) + "\n")


def proportional_bytes(process: psutil.Process) -> int:
    """PSS of a process."""
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * 1024
    raise ValueError(f"no Pss for process {process.pid}")


def _name(process: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    return next((name for word, name in NAMES.items() if word in words), "foreground")


if __name__ == "__main__":
    main(sys.argv[1:])
