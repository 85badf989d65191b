"""What of a URL or a command line may be seen, when it may hold secrets?

Ours travel by environment. But what the config adds to a command, and flags that llamactl doesn't
know, are the operator's, and so is what they put there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

MASK = "***"

_SECRET_NAME = re.compile("key|token|secret|pass|credential|auth", re.IGNORECASE)

# "hft" is llama-server's short name for --hf-token.
_SENSITIVE = r"(?:[\w.-]*(?:key|api[_-]?keys|token|secrets?|password|passwd|credentials?)|hft)"
_FLAG = re.compile(rf"--?{_SENSITIVE}", re.IGNORECASE | re.ASCII)
_ASSIGNMENT = re.compile(rf"(-{{0,2}}{_SENSITIVE})=.*", re.IGNORECASE | re.ASCII | re.DOTALL)
# As docker takes variables: -e NAME=value, -eNAME=value, --env=NAME=value.
_ENVIRONMENT_FLAGS = ("-e", "--env")
_VARIABLE = re.compile(r"([A-Za-z_]\w*)=.*", re.ASCII | re.DOTALL)
_FLAG_WITH_VARIABLE = re.compile(r"((?:-e=?|--env=)[A-Za-z_]\w*)=.*", re.ASCII | re.DOTALL)


def mask_url(url: str) -> str:
    """``postgres://me:secret@host/db`` -> ``postgres://me:***@host/db``.

    A password may hold every character, so all up to the last ``@`` is one. Also masked are the
    parameters behind ``?`` whose names sound secret.
    """
    url = re.sub(r"(://[^:/@?#]*):.*@", rf"\1:{MASK}@", url, flags=re.DOTALL)
    return re.sub(
        r"([?&][^=&#]*(?:pass|pwd|secret|token|key)[^=&#]*=)[^&#]+", rf"\1{MASK}", url, flags=re.I
    )


def mask_arguments(words: Sequence[str]) -> list[str]:
    """The words of a command, the values of ``--api-key``, ``-e NAME=…`` and the like masked."""
    return [f"{kept}{MASK if is_cut else ''}" for kept, is_cut in judged(words)]


def judged(words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """What of each word may be seen, and whether something secret followed."""
    previous = ""
    for word in words:
        if _FLAG.fullmatch(previous) and not word.startswith("--"):
            yield "", True
            # What it was must not be taken for a flag.
            previous = ""
            continue
        assignment = _FLAG_WITH_VARIABLE.fullmatch(word) or _ASSIGNMENT.fullmatch(word)
        if previous in _ENVIRONMENT_FLAGS:
            assignment = _VARIABLE.fullmatch(word) or assignment
        if assignment is not None:
            yield f"{assignment[1]}=", True
        else:
            yield mask_url(word), False
        previous = word


def shown_command(argv: Sequence[str]) -> str:
    """The command as one could paste it, the values of what sounds like a secret replaced."""
    return " ".join(
        f"{kept}{MASK}" if is_cut else shlex.quote(kept) for kept, is_cut in judged(argv)
    )


def sounds_secret(name: str) -> bool:
    """Whether a variable of this name may hold what nobody should read; rather yes than no."""
    return _SECRET_NAME.search(name) is not None
