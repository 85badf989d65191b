"""``python -m bench.profile``: the CPU time of a request by package, in the web process.

py-spy looks into the running process from outside, 250 times a second, while 64 clients load it.
Each sample counts for the innermost package on the stack: the standard library has no share of its
own. A sample outside all Python code is the event loop itself (uvloop: sockets, polling).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from bench import machine, matrix
from bench.processes import allow_many_files
from bench.report import RESULTS, facts, table, write_json
from bench.runs import measure as measure_run
from bench.signals import end_in_order
from bench.stack import INSTANCE, llamactl_system

CLIENTS = 64
SAMPLES_PER_SECOND = 250
MARGIN_SECONDS = 2
LOOP = "event loop (uvloop)"
PARTS = {
    "uvicorn": "uvicorn: parse the request, write the answer",
    "proxy/upstream": "llamactl: ask the backend",
    "llamactl/server": "llamactl: HTTP protocol and transport",
    "llamactl": "llamactl: outer layers (CORS)",
    "proxy": "llamactl: proxy (key, route, relay)",
    "keys": "llamactl: proxy (key, route, relay)",
    "instances": "llamactl: proxy (key, route, relay)",
    "orjson": "llamactl: proxy (key, route, relay)",
}
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*):\d+\)$")


def part_of(frames: Iterable[str]) -> str:
    """Return the package of a sample: the innermost frame of a known package."""
    for frame in reversed(list(frames)):
        found = _FRAME.match(frame)
        if found is None:
            continue
        file = found["file"]
        if file == "llamactl/server/web/__main__.py":
            break
        for package, name in PARTS.items():
            if file.startswith(f"{package}/"):
                if package == "uvicorn" and file.startswith(("uvicorn/server", "uvicorn/_compat")):
                    return LOOP  # the frames that merely run the loop
                return name
    return LOOP


def shares(raw: str) -> dict[str, float]:
    """Part -> share of the samples, the largest first; `raw` is py-spy's format of that name."""
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        frames, _, count = line.rpartition(" ")
        # A thread of its own (the database's, the broker's) is not on the way of a request.
        counts[part_of(frames.split(";"))] += int(count)
    total = counts.total() or 1
    return {name: count / total for name, count in counts.most_common()}


def record(pid: int, program: str, seconds: int, path: Path) -> subprocess.Popen[bytes]:
    """Begin to sample; it ends by itself."""
    argv = [program, "record", "--pid", str(pid), "--duration", str(seconds), "--format", "raw"]
    argv += ["--rate", str(SAMPLES_PER_SECOND), "--gil", "--output", str(path)]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measure(program: str, seconds: int) -> tuple[dict[str, float], float]:
    """The shares, and the CPU time of a request in microseconds without a profiler beside it."""
    scenario = matrix.requests_of(CLIENTS)
    with (
        tempfile.TemporaryDirectory(prefix="llamactl-bench-profile-") as directory,
        llamactl_system(INSTANCE, {}) as system,
    ):
        undisturbed = measure_run(scenario.plan(system, seconds=5, warm_up_seconds=2), system)
        cost = undisturbed["proxy_cpu_us_each"]
        assert isinstance(cost, float)
        path = Path(directory) / "samples"
        [process] = system.processes["proxy"]
        sampling = record(process.pid, program, seconds, path)
        loaded = seconds + MARGIN_SECONDS
        measure_run(scenario.plan(system, seconds=loaded, warm_up_seconds=0), system)
        if sampling.wait(60):
            raise RuntimeError(f"{program} failed; it may need to be root to look into a process")
        return shares(path.read_text()), cost


def main() -> int:
    """The program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    own = Path(__file__).with_name(".py-spy") / "bin" / "py-spy"
    parser.add_argument("--py-spy", default=str(own), help="`make bench-py-spy` installs it")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    program = shutil.which(options.py_spy) or shutil.which("py-spy")
    if program is None:
        print(f"bench: no {options.py_spy}; `make bench-py-spy` installs it", file=sys.stderr)
        return 1
    end_in_order()
    allow_many_files()
    description = machine.describe()
    print(facts(description), end="\n\n", flush=True)
    try:
        found, cost = measure(program, options.seconds)
    except (RuntimeError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    rows = [["", "share", "us"]]
    rows += [[name, f"{share:.0%}", f"{share * cost:.0f}"] for name, share in found.items()]
    print(table([*rows, ["a request", "100%", f"{cost:.0f}"]]))
    document = {"measured_on": description, "profile": {"cpu_us": cost, "shares": found}}
    path = options.output or RESULTS / f"profile-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    print(f"all figures: {write_json(document, path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
