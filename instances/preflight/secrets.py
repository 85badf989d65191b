"""Check for secrets in the command line, which every user of the host can read.

llamactl passes ``api_key`` and ``hf_token`` by environment, also out of ``extra_args``. No flag is
known by which a program takes another secret from the environment, hence a warning.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

from instances.backends.base import LOOPBACK, Backend
from instances.preflight.findings import PreflightFinding, warning
from llamactl.masking import is_secret_name, secret_words

_VARIABLE = re.compile(r"(?:-e|--env=)?([A-Za-z_]\w*)=.", re.ASCII)
"""``-e NAME=value``, ``-eNAME=value`` or ``--env=NAME=value``."""


def check_secrets(backend: Backend, options: Mapping[str, object]) -> list[PreflightFinding]:
    """Warn of each secret that ``options`` (in normal form) put into the command line."""
    launched = backend.launch_options(options, instance_name="name", host=LOOPBACK, port=1)
    advice = "give it by environment or by a file, where the program takes one"
    return _warnings("backend_options", secret_words(backend.build_args(launched)), advice)


def check_docker_secrets(docker_args: str) -> list[PreflightFinding]:
    """Warn of each secret variable in further arguments of ``docker run``."""
    advice = "put the variable into the environment of the instance"
    names = [match[1] for word in shlex.split(docker_args) if (match := _VARIABLE.match(word))]
    return _warnings("docker_args", filter(is_secret_name, names), advice)


def _warnings(field: str, sources: Iterable[str], advice: str) -> list[PreflightFinding]:
    return [
        warning(
            field,
            f"the value of {source} is a secret, and every user of the host can read it in the list"
            " of processes",
            advice,
        )
        for source in dict.fromkeys(sources)
    ]
