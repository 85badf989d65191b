"""How is a command line shown in a log, when it may hold secrets?

Ours travel by environment. But arguments from the config and flags that llamactl doesn't know are
the operator's, and so is what they put there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

HIDDEN = "***"

_SENSITIVE = r"[\w.-]*(?:api[_-]?keys?|token|secrets?|password|passwd|credentials?)"
_FLAG = re.compile(rf"--?{_SENSITIVE}", re.IGNORECASE | re.ASCII)
_ASSIGNMENT = re.compile(rf"(-{{0,2}}{_SENSITIVE})=.*", re.IGNORECASE | re.ASCII | re.DOTALL)


def shown_command(argv: Sequence[str]) -> str:
    """The command as one could paste it, the values of what sounds like a secret replaced."""
    words = []
    hide_next = False
    for word in argv:
        if hide_next and not word.startswith("--"):
            words.append(HIDDEN)
            hide_next = False
            continue
        hide_next = _FLAG.fullmatch(word) is not None
        assignment = _ASSIGNMENT.fullmatch(word)
        words.append(f"{assignment.group(1)}={HIDDEN}" if assignment else shlex.quote(word))
    return " ".join(words)
