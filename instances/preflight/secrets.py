"""Check for secrets in the command line, which every user of the host can read.

llamactl passes ``api_key`` and ``hf_token`` by environment, also out of ``extra_args``. No flag is
known by which a program takes another secret from the environment, hence a warning.
"""

from __future__ import annotations

from collections.abc import Mapping

from instances.backends.base import LOOPBACK, Backend
from instances.preflight.findings import PreflightFinding, warning
from llamactl.masking import secret_words


def check_secrets(backend: Backend, options: Mapping[str, object]) -> list[PreflightFinding]:
    """Warn of each secret that ``options`` (in normal form) put into the command line."""
    launched = backend.launch_options(options, instance_name="name", host=LOOPBACK, port=1)
    return [
        warning(
            "backend_options",
            f"the value of {flag} is a secret, and every user of the host can read it in the list"
            " of processes",
            "give it by environment or by a file, where the program takes one",
        )
        for flag in dict.fromkeys(secret_words(backend.build_args(launched)))
    ]
