"""Checks of files and address before anything is loaded: cheap, and with better advice."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from .start_error import StartError
else:
    from start_error import StartError

Values = Mapping[str, Any]
"""The last value given for a flag, by the flag's long name."""


def check_files(values: Values) -> None:
    """Raise StartError for a model file that is missing, unreadable or no GGUF file."""
    model = values.get("--model")
    remote = values.get("--hf-repo") or values.get("--docker-repo")
    if not model and not remote:
        raise StartError(
            "no model given: say which with --model FILE or --hf-repo USER/MODEL. "
            "The embedded server has no router mode, and --model-url needs --model too."
        )
    files = [values.get("--mmproj"), values.get("--spec-draft-model")]
    for flag in ("--lora", "--lora-scaled"):
        files += [path for path, _scale in values.get(flag, [])]
    if not remote and not values.get("--model-url"):
        files.insert(0, model)
    for path in filter(None, files):
        check_gguf(Path(path))


def check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise StartError(f"model file not found: {path.absolute()}. Check the path.") from None
    except OSError as error:
        raise StartError(
            f"model file can't be read: {path.absolute()} ({error.strerror}). It must be a file "
            f"that user {os.getuid()} may read."
        ) from None
    if magic != b"GGUF":
        raise StartError(
            f"model file is no GGUF file: {path.absolute()}. llama.cpp loads GGUF files only; "
            f"convert the model or download it in this format."
        )


def check_address(values: Values) -> None:
    """Raise StartError for a port that can't be bound; llama.cpp would say less, and later."""
    port = values.get("--port", 8080)
    for host in values.get("--host", ["127.0.0.1"]):
        if host.endswith(".sock") or values.get("--reuse-port"):
            continue
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                # As llama-server does; without it connections in TIME_WAIT count as use.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise StartError(
                    f"port in use: {host} port {port} belongs to another program. Stop it or "
                    f"choose another port."
                ) from None
            why = error.strerror if isinstance(error, OSError) else error
            raise StartError(f"cannot listen on {host} port {port}: {why}.") from None
