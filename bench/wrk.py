"""A check by another load generator: ``wrk``, with the requests of ours."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.plan import LoadPlan

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Check:
    """The figures of wrk and of our own generator, for one system under the same load."""

    system: str
    clients: int
    requests_per_second: float
    ours: float
    latency_p50_ms: float
    latency_p99_ms: float
    failures: str


def is_installed() -> bool:
    """Whether ``wrk`` is on PATH."""
    return shutil.which("wrk") is not None


def check(system: str, plan: LoadPlan, *, ours: float, seconds: int) -> Check:
    """The requests of a closed-loop plan, sent by wrk from one thread with as many connections."""
    key = plan.keys[0] if plan.keys else ""
    script = "\n".join(
        [
            'wrk.method = "POST"',
            f"wrk.body = {_lua(json.dumps(plan.body, separators=(',', ':')))}",
            'wrk.headers["Content-Type"] = "application/json"',
            f'wrk.headers["Authorization"] = {_lua(f"Bearer {key}")}',
        ]
    )
    with tempfile.TemporaryDirectory(prefix="llamactl-bench-wrk-") as name:
        path = Path(name) / "request.lua"  # not in the arguments: it holds the key
        path.touch(mode=0o600)
        path.write_text(script)
        argv = ["wrk", "-t1", f"-c{plan.clients}", f"-d{seconds}s", "--latency", "-s", str(path)]
        argv.append(f"{plan.base_url}/v1/chat/completions")
        told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    rate, p50, p99, failures = parse(told)
    return Check(system, plan.clients, rate, ours, p50, p99, failures)


def parse(told: str) -> tuple[float, float, float, str]:
    """Requests per second, median and 99th percentile in ms, and the errors ("" for none).

    Raises ValueError for text that is not the output of wrk.
    """
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", told, re.M)
    if rate is None:
        raise ValueError(f"wrk printed no rate: {told!r}")
    wrong = re.findall(r"^\s*((?:Non-2xx|Socket errors).*)$", told, re.M)
    return float(rate[1]), _percentile(told, "50"), _percentile(told, "99"), "; ".join(wrong)


def _percentile(told: str, percent: str) -> float:
    found = re.search(rf"^\s*{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", told, re.M)
    return float(found[1]) * _UNITS[found[2]] if found else float("nan")


def _lua(text: str) -> str:
    """A Lua string literal, by decimal escapes for all that is not plain."""
    plain = (
        chr(b) if b < 128 and (chr(b).isalnum() or chr(b) in " -_.:,/{}[]") else f"\\{b:03}"
        for b in text.encode()
    )
    return '"' + "".join(plain) + '"'
