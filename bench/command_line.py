"""The command line of ``python -m bench``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import matrix
from bench.matrix import Stage, SystemSpec
from bench.peers import LITELLM_VENV, litellm_program, nginx_program
from bench.scenarios import Scenario
from tests.support.fake_backend.connection import DEFAULT_RESPONSE_BYTES, DEFAULT_TPS

PEERS: Mapping[str, SystemSpec] = {
    "nginx": SystemSpec("nginx", "nginx"),
    "litellm": SystemSpec("litellm", matrix.LITELLM),
}


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

    stages: tuple[Stage, ...]
    rounds: int
    seconds: float
    warm_up_seconds: float
    base_url: str
    key: str
    model: str
    also: tuple[Also, ...]
    litellm_venv: Path
    with_wrk: bool
    left_out: tuple[str, ...]
    backend_port: int
    output: Path | None


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; ends the program with status 2 when it is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.base_url and not given.model:
        parser.error("--base-url needs --model")
    if given.disconnects and given.base_url:
        parser.error("--disconnects asks the backend, and that of --base-url is not known")
    is_told = (given.clients, given.streams, given.disconnects) != (None, None, None)
    if given.full and (is_told or given.base_url):
        loads = "--clients, --streams, --disconnects"
        parser.error(f"--full is a matrix of its own: no {loads} or --base-url with it")
    missing = _missing(given.litellm_venv)
    for name in given.peers:
        if name in missing:
            parser.error(f"--with {name}: {missing[name]}")
    quick, full = given.quick, given.full
    return Options(
        stages=_stages(given, [name for name in PEERS if name not in missing]),
        rounds=given.rounds or (1 if quick else 3 if full else 5),
        seconds=given.seconds or (1.0 if quick else 2.5 if full else 3.0),
        warm_up_seconds=0.3 if quick else 0.7 if full else 1.0,
        base_url=given.base_url,
        key=given.key,
        model=given.model,
        also=tuple(given.also),
        litellm_venv=given.litellm_venv,
        with_wrk=full or given.wrk,
        left_out=tuple(f"{name}: {why}" for name, why in missing.items()) if full else (),
        backend_port=given.backend_port,
        output=given.output,
    )


def _missing(litellm_venv: Path) -> dict[str, str]:
    """The peers that are not installed, and the commands that install them."""
    missing = {}
    if nginx_program() is None:
        missing["nginx"] = "it is not on PATH; on Debian: apt install nginx-light"
    if litellm_program(litellm_venv) is None:
        missing["litellm"] = f"it is not in {litellm_venv}; `make bench-litellm` installs it"
    return missing


def _stages(given: argparse.Namespace, installed: Sequence[str]) -> tuple[Stage, ...]:
    settings = dict(given.set)
    if given.full:
        names = list(dict.fromkeys([*given.peers, *installed]))
        stages = matrix.whole_matrix([PEERS[name] for name in names], settings)
        if given.quick:
            return tuple(
                Stage(stage.systems, tuple(each for each in stage.scenarios if each.clients < 500))
                for stage in stages
            )
        return stages
    systems = [PEERS[name] for name in dict.fromkeys(given.peers)]
    if given.with_llamactl and not given.base_url:
        own = SystemSpec(
            "llamactl", "llamactl", settings, keys=given.keys, instances=given.instances
        )
        systems.append(own)
    return (Stage(tuple(systems), tuple(_scenarios(given))),)


def _scenarios(given: argparse.Namespace) -> list[Scenario]:
    """The essentials, unless clients or streams are given; disconnects are measured alone."""
    is_plain = (
        given.clients is None
        and given.streams is None
        and given.disconnects is None
        and given.tps is None
        and given.stream_seconds is None
        and given.body_bytes == matrix.REQUEST_BYTES
        and given.response_bytes == DEFAULT_RESPONSE_BYTES
        and not given.open_loop
    )
    if is_plain and not given.quick:
        return list(matrix.ESSENTIALS)
    disconnects = given.disconnects or ()
    clients = given.clients if given.clients is not None else () if disconnects else (1, 16, 64)
    streams = given.streams if given.streams is not None else () if disconnects else (200,)
    stream_seconds = given.stream_seconds
    if stream_seconds is None and given.quick and not any(n >= matrix.HELD_FROM for n in streams):
        stream_seconds = 1.0
    sizes = {"body_bytes": given.body_bytes, "response_bytes": given.response_bytes}
    return [
        *(
            matrix.streams_of(
                number,
                tps=given.tps or DEFAULT_TPS,
                stream_seconds=stream_seconds,
                body_bytes=given.body_bytes,
            )
            for number in streams
        ),
        *(
            matrix.disconnects_of(
                number, tps=given.tps or matrix.DISCONNECT_TPS, body_bytes=given.body_bytes
            )
            for number in disconnects
        ),
        *(matrix.requests_of(number, **sizes) for number in clients),
        *(matrix.open_loop_of(number) for number in clients if given.open_loop),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Requests and streams straight to a backend, and through llamactl and others.",
    )
    parser.add_argument("--quick", action="store_true", help="one round of 1 s each: about 20 s")
    parser.add_argument(
        "--full", action="store_true", help="the whole matrix, with all peers that are installed"
    )
    parser.add_argument("--rounds", type=_positive_int, help="default 5; --full: 3")
    parser.add_argument(
        "--seconds", type=_positive, help="measured window of a run, default 3; --full: 2.5"
    )
    _add_load(parser.add_argument_group("load"))
    _add_systems(parser.add_argument_group("systems"))
    _add_llamactl(parser.add_argument_group("llamactl"))
    parser.add_argument("--output", type=Path, help="JSON file, default bench/results/<time>.json")
    return parser


def _add_load(load: argparse._ArgumentGroup) -> None:
    load.add_argument("--clients", type=_counts, metavar="N,N", help="default 1,16,64")
    load.add_argument("--streams", type=_counts, metavar="N,N", help="default 200")
    load.add_argument(
        "--disconnects",
        type=_counts,
        metavar="N,N",
        help="so many streams, whose clients all disconnect at once; alone, unless --clients or"
        " --streams are told too",
    )
    load.add_argument(
        "--tps",
        type=_positive,
        help=f"tokens/s of a stream, default {DEFAULT_TPS:g},"
        f" or {matrix.DISCONNECT_TPS:g} with --disconnects",
    )
    load.add_argument(
        "--stream-seconds",
        type=_not_negative,
        metavar="S",
        help="how long a stream takes before its client begins the next; 0: each is opened gently"
        f" before the window and stays open; default 2, or 0 from {matrix.HELD_FROM} streams on",
    )
    load.add_argument(
        "--open-loop",
        action="store_true",
        help="also a fixed rate, half of what the closed loop reached",
    )
    load.add_argument("--body-bytes", type=_positive_int, default=matrix.REQUEST_BYTES, metavar="N")
    load.add_argument(
        "--response-bytes", type=_positive_int, default=DEFAULT_RESPONSE_BYTES, metavar="N"
    )
    load.add_argument(
        "--wrk", action="store_true", help="the same with wrk, if it is on PATH (--full does it)"
    )


def _add_systems(systems: argparse._ArgumentGroup) -> None:
    systems.add_argument(
        "--with",
        dest="peers",
        action="append",
        default=[],
        choices=PEERS,
        help="a peer that we start ourselves; may be given twice",
    )
    systems.add_argument(
        "--litellm-venv",
        type=Path,
        default=LITELLM_VENV,
        metavar="DIR",
        help="where LiteLLM is installed; `make bench-litellm` does it there",
    )
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
        "--backend-port", type=int, default=0, help="port of the direct backend, for --also proxies"
    )


def _add_llamactl(llamactl: argparse._ArgumentGroup) -> None:
    llamactl.add_argument(
        "--no-llamactl", dest="with_llamactl", action="store_false", help="leave it out"
    )
    llamactl.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="LLAMACTL_X=VALUE",
        help="a setting of our own llamactl; may be given often",
    )
    llamactl.add_argument(
        "--keys", type=_positive_int, default=1, help="keys in the database of our own llamactl"
    )
    llamactl.add_argument(
        "--instances", type=_positive_int, default=1, help="instances there, one of which runs"
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be more than 0")
    return value


def _not_negative(text: str) -> float:
    return 0.0 if float(text) == 0 else _positive(text)


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
