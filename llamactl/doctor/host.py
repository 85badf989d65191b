"""Check of the host: limit of open files, clock and GPUs."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from llamactl.doctor.diagnosis import Diagnosis, note, ok, problem, warning

FEW_DESCRIPTORS = 4096
GPU_SECONDS = 5.0
NOT_BEFORE = 1_767_225_600  # 2026-01-01, before this line was written
CLOCK_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True)
class DescriptorFacts:
    """Soft limit of open files, by the name of the process."""

    limits: dict[str, int]


def collect_descriptors(pids: dict[str, int]) -> DescriptorFacts:
    """Collect the limits of these processes, given as name of the service → pid."""
    limits = {}
    for name, pid in pids.items():
        with suppress(OSError, ValueError):
            limits[name] = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    return DescriptorFacts(limits or {"this shell": resource.getrlimit(resource.RLIMIT_NOFILE)[0]})


def diagnose_descriptors(facts: DescriptorFacts) -> Iterator[Diagnosis]:
    for name, limit in facts.limits.items():
        if limit != resource.RLIM_INFINITY and limit < FEW_DESCRIPTORS:
            yield warning(
                "open files",
                f"{name} may open {limit}, enough for {limit // 2} concurrent requests",
                "set LimitNOFILE=65536 in the unit, or run 'ulimit -n 65536' before the start",
            )
        else:
            yield ok("open files", f"{name} may open {limit}")


def diagnose_clock(now: float, others: dict[str, float | None]) -> Iterator[Diagnosis]:
    """Compare this clock at ``now`` with the ``others`` (unix times, by name)."""
    if now < NOT_BEFORE:
        text = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now))
        yield problem(
            "clock",
            f"the clock shows {text} UTC: keys expire at wrong times, and TLS fails",
            "set the clock (timedatectl set-ntp true)",
        )
        return
    for name, other in others.items():
        if other is not None and abs(other - now) > CLOCK_TOLERANCE_SECONDS:
            span = timedelta(seconds=round(abs(other - now)))
            yield warning(
                "clock",
                f"{name} is {span} (h:mm:ss) {'ahead of' if other > now else 'behind'} this clock",
                "set the clocks of all hosts by NTP (timedatectl set-ntp true): heartbeats and the"
                " expiry of keys compare their times",
            )
            return
    yield ok("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


def collect_gpus() -> list[str]:
    """List the GPUs, one line each; empty if none is detected."""
    found = []
    if program := shutil.which("nvidia-smi"):
        try:
            done = subprocess.run(
                [program, "-L"], capture_output=True, text=True, timeout=GPU_SECONDS, check=False
            )
            found += [line.partition(" (UUID")[0] for line in done.stdout.splitlines()[:16]]
            if done.returncode != 0:
                found.append(f"nvidia-smi fails: {(done.stdout or done.stderr).strip()[:100]}")
        except (OSError, subprocess.TimeoutExpired) as error:
            found.append(f"nvidia-smi does not answer ({type(error).__name__})")
    if Path("/dev/kfd").exists():
        allowed = os.access("/dev/kfd", os.R_OK | os.W_OK)
        found.append("an AMD GPU" + ("" if allowed else " that this user may not use (/dev/kfd)"))
    return found


def diagnose_gpus(found: list[str]) -> Iterator[Diagnosis]:
    yield note("GPU", "; ".join(found) if found else "none detected: models run on the CPU")
