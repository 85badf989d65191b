"""How is a command line shown in a log, when it may hold secrets?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from llamactl.masking import MASK, judged

_NAME = re.compile("key|token|secret|pass|credential|auth", re.IGNORECASE)


def shown_command(argv: Sequence[str]) -> str:
    """The command as one could paste it, the values of what sounds like a secret replaced."""
    return " ".join(
        f"{kept}{MASK}" if is_cut else shlex.quote(kept) for kept, is_cut in judged(argv)
    )


def sounds_secret(name: str) -> bool:
    """Whether a variable of this name may hold what nobody should read; rather yes than no."""
    return _NAME.search(name) is not None
