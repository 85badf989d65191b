"""What may be asked of ``python -m bench``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.fake_backend import DEFAULT_RESPONSE_BYTES, DEFAULT_TPS
from bench.scenarios import Scenario


@dataclass(frozen=True)
class Also:
    """A proxy that runs already, as told by ``--also``."""

    name: str
    base_url: str
    key: str
    model: str


@dataclass(frozen=True)
class Options:
    """The command line, with the defaults filled in."""

    scenarios: tuple[Scenario, ...]
    rounds: int
    seconds: float
    warm_up_seconds: float
    base_url: str
    key: str
    model: str
    also: tuple[Also, ...]
    with_llamactl: bool
    settings: dict[str, str]
    backend_port: int
    output: Path | None


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; ends the program with status 2 when it is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.base_url and not given.model:
        parser.error("--base-url needs --model")
    quick = given.quick
    seconds = given.seconds if given.seconds is not None else (1.0 if quick else 3.0)
    warm_up_seconds = 0.3 if quick else 1.0
    # A stream lasts two seconds: long beside its start, short enough for many starts.
    stream_seconds = 1.0 if quick else 2.0
    scenarios = [
        Scenario(
            mode="requests",
            clients=clients,
            body_bytes=given.body_bytes,
            response_bytes=given.response_bytes,
        )
        for clients in given.clients
    ] + [
        Scenario(
            mode="streams",
            clients=streams,
            body_bytes=given.body_bytes,
            tokens=max(1, round(given.tps * stream_seconds)),
            tps=given.tps,
        )
        for streams in given.streams
    ]
    return Options(
        scenarios=tuple(scenarios),
        rounds=given.rounds if given.rounds is not None else (1 if quick else 5),
        seconds=seconds,
        warm_up_seconds=warm_up_seconds,
        base_url=given.base_url,
        key=given.key,
        model=given.model,
        also=tuple(given.also),
        with_llamactl=given.with_llamactl,
        settings=dict(given.set),
        backend_port=given.backend_port,
        output=given.output,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Requests and streams straight to a backend, and through llamactl.",
    )
    parser.add_argument("--quick", action="store_true", help="one round of 1 s each: about 20 s")
    parser.add_argument("--rounds", type=_positive_int, help="default 5")
    parser.add_argument("--seconds", type=_positive, help="measured window of a run, default 3")

    load = parser.add_argument_group("load")
    load.add_argument(
        "--clients", type=_counts, default=(1, 16, 64), metavar="N,N", help="default 1,16,64"
    )
    load.add_argument("--streams", type=_counts, default=(200,), metavar="N,N", help="default 200")
    load.add_argument("--tps", type=_positive, default=DEFAULT_TPS, help="tokens/s of a stream")
    load.add_argument("--body-bytes", type=_positive_int, default=300, metavar="N")
    load.add_argument(
        "--response-bytes", type=_positive_int, default=DEFAULT_RESPONSE_BYTES, metavar="N"
    )

    systems = parser.add_argument_group("systems")
    systems.add_argument(
        "--base-url", default="", help="instead of a llamactl of our own: http://host:port"
    )
    systems.add_argument("--key", default="", help="inference key for --base-url")
    systems.add_argument("--model", default="", help="model name for --base-url")
    systems.add_argument(
        "--also",
        type=_also,
        action="append",
        default=[],
        metavar="NAME=URL,KEY,MODEL",
        help="one more running proxy to compare; may be given often",
    )
    systems.add_argument(
        "--no-llamactl", dest="with_llamactl", action="store_false", help="leave it out"
    )
    systems.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="LLAMACTL_X=VALUE",
        help="a setting of our own llamactl; may be given often",
    )
    systems.add_argument(
        "--backend-port", type=int, default=0, help="port of the direct backend, for --also proxies"
    )
    parser.add_argument("--output", type=Path, help="JSON file, default bench/results/<time>.json")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be more than 0")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be 1 or more")
    return value


def _counts(text: str) -> tuple[int, ...]:
    """``"1,16"`` -> ``(1, 16)``; empty or ``0``: none."""
    return tuple(_positive_int(part) for part in text.split(",") if part.strip() not in ("", "0"))


def _also(text: str) -> Also:
    name, equals, rest = text.partition("=")
    parts = rest.split(",")
    if not (name and equals and len(parts) == 3 and parts[0] and parts[2]):
        raise argparse.ArgumentTypeError(f"{text!r}: must be name=http://host:port,key,model")
    return Also(name, *parts)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name.startswith("LLAMACTL_")):
        raise argparse.ArgumentTypeError(f"{text!r}: must be LLAMACTL_NAME=value")
    return name, value
