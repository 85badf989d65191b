"""The machine of the measurement, and the versions of the programs involved."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("django", "channels", "uvicorn", "gunicorn", "uvloop", "httptools", "aiohttp", "orjson")


def describe() -> dict[str, str]:
    """Name -> value, in the order to print."""
    versions = (f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "processor": f"{_processor()}, {psutil.cpu_count()} logical cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(versions),
        "commit": _commit(),
        "load average before": load,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit} with changes" if _git("status", "--porcelain") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    argv = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
