"""How is a command line shown in a log, when it may hold secrets?

Ours travel by environment. But arguments from the config and flags that llamactl doesn't know are
the operator's, and so is what they put there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

HIDDEN = "***"

_SENSITIVE = r"[\w.-]*(?:api[_-]?keys?|token|secrets?|password|passwd|credentials?)"
_NAME = re.compile("key|token|secret|pass|credential|auth", re.IGNORECASE)
_FLAG = re.compile(rf"--?{_SENSITIVE}", re.IGNORECASE | re.ASCII)
_ASSIGNMENT = re.compile(rf"(-{{0,2}}{_SENSITIVE})=.*", re.IGNORECASE | re.ASCII | re.DOTALL)


def masked_argv(argv: Sequence[str]) -> list[str]:
    """The words of a command, the values of what sounds like a secret replaced."""
    return [f"{kept}{HIDDEN if hidden else ''}" for kept, hidden in _judged(argv)]


def shown_command(argv: Sequence[str]) -> str:
    """The command as one could paste it, the values of what sounds like a secret replaced."""
    return " ".join(
        f"{kept}{HIDDEN}" if hidden else shlex.quote(kept) for kept, hidden in _judged(argv)
    )


def sounds_secret(name: str) -> bool:
    """Whether a variable of this name may hold what nobody should read; rather yes than no."""
    return _NAME.search(name) is not None


def _judged(argv: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """What of each word may be seen, and whether something secret followed."""
    hide_next = False
    for word in argv:
        if hide_next and not word.startswith("--"):
            yield "", True
            hide_next = False
            continue
        hide_next = _FLAG.fullmatch(word) is not None
        assignment = _ASSIGNMENT.fullmatch(word)
        yield (f"{assignment.group(1)}=", True) if assignment else (word, False)
