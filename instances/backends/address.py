"""Options that move the address of a backend, and that llamactl does not follow.

Probe, proxy and web UI reach a backend at ``http://HOST:PORT/`` without a prefix. ``host`` and
``port`` are options of llamactl's own: their arguments come last and win against the config's
arguments and variables. A prefix, https or a socket file would leave the backend unreachable, so
each is refused when it is saved, and again at a start (the config may have changed since).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from instances.backends.base import Backend
from instances.backends.values import InvalidBackendOptions

_FOLLOWED = ("host", "port")
SHORTEST_ABBREVIATION = 2


def check_options(backend: Backend, options: Mapping[str, object]) -> None:
    """Check options in normal form. Raises InvalidBackendOptions."""
    for name, effect in backend.address_options.items():
        if options.get(name):
            raise _refusal(f"backend_options.{name}", effect)
    if str(options.get("host", "")).endswith(".sock"):
        raise _refusal("backend_options.host", "makes the backend listen on a socket file")
    extra = options.get("extra_args")
    if not backend.table.equals or not isinstance(extra, Mapping):
        return
    for key in extra:  # argparse takes the beginning of a flag for the flag
        for name in (*backend.address_options, *_FOLLOWED):
            if len(key) >= SHORTEST_ABBREVIATION and name.startswith(key):
                raise InvalidBackendOptions(
                    f"backend_options.extra_args.{key} would be taken for {name}, which changes the"
                    " backend's address; write the name of the option in full"
                )


def check_arguments(backend: Backend, arguments: Sequence[str], label: str) -> None:
    """Check arguments of the config; ``label`` is their key. Raises InvalidBackendOptions."""
    for word in arguments:
        spelling = word.partition("=")[0] if backend.table.equals else word
        found = backend.table.find_spelling(spelling) if spelling.startswith("-") else None
        effect = backend.address_options.get(found[0].name) if found is not None else None
        if effect is not None:
            raise _refusal(f"{spelling} in {label}", effect)
        # docker run -e NAME=VALUE
        assignment = word.removeprefix("--env=").removeprefix("-e")
        name, _, value = assignment.partition("=")
        check_environment(backend, {name: value}, label)


def check_environment(backend: Backend, environment: Mapping[str, str], label: str) -> None:
    """Check variables; ``label`` is the option or key. Raises InvalidBackendOptions."""
    for variable, option in backend.address_variables.items():
        if environment.get(variable):
            raise _refusal(f"{variable} in {label}", backend.address_options[option])


def _refusal(source: str, effect: str) -> InvalidBackendOptions:
    return InvalidBackendOptions(
        f"{source} {effect}, and llamactl reaches a backend only by http at its port, without a"
        " prefix: leave it out, and put llamactl itself behind a reverse proxy for that"
    )
