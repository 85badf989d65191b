"""Does the host offer what llamactl needs: descriptors, a clock, GPUs?"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llamactl.doctor.findings import Diagnosis, note, ok, problem, warning

FEW_DESCRIPTORS = 4096
GPU_SECONDS = 5.0
NOT_BEFORE = 1_767_225_600  # 2026-01-01, before this was written
CLOCK_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True)
class DescriptorFacts:
    """The soft limit of each process, by who it is."""

    limits: dict[str, int]


def look_at_descriptors(pids: dict[str, int]) -> DescriptorFacts:
    """``pids``: name of a service → its process."""
    limits = {}
    for name, pid in pids.items():
        with suppress(OSError, ValueError):
            limits[name] = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    return DescriptorFacts(limits or {"this shell": resource.getrlimit(resource.RLIMIT_NOFILE)[0]})


def judge_descriptors(facts: DescriptorFacts) -> Iterator[Diagnosis]:
    for name, limit in facts.limits.items():
        if limit != resource.RLIM_INFINITY and limit < FEW_DESCRIPTORS:
            yield warning(
                "open files",
                f"{name} may have {limit}, which is {limit // 2} requests at a time",
                "LimitNOFILE=65536 in the unit, or 'ulimit -n 65536' before the start",
            )
        else:
            yield ok("open files", f"{name} may have {limit}")


def judge_clock(now: float, others: dict[str, float | None]) -> Iterator[Diagnosis]:
    """``others``: what another clock said at ``now`` (unix time)."""
    if now < NOT_BEFORE:
        text = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now))
        yield problem(
            "clock",
            f"it says {text} UTC: keys expire wrongly, and TLS fails",
            "set it (timedatectl set-ntp true)",
        )
        return
    for name, said in others.items():
        if said is not None and abs(said - now) > CLOCK_TOLERANCE_SECONDS:
            yield warning(
                "clock",
                f"{name} is {abs(said - now):.0f} s {'ahead' if said > now else 'behind'}",
                "let both follow NTP: heartbeats and the expiry of keys compare their times",
            )
            return
    yield ok("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


def look_at_gpus() -> list[str]:
    """What there is, one line each; empty where nothing says so."""
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


def judge_gpus(found: list[str]) -> Iterator[Diagnosis]:
    yield note("GPU", "; ".join(found) if found else "none seen: models run on the CPU")
