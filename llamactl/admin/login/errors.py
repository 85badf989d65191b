"""Refusals of a login, which say how long to wait."""

from __future__ import annotations

import math

from llamactl.core.errors import LlamactlError


class TooManyAttempts(LlamactlError):
    """A login beyond a limit. Its password was not compared."""

    code = "too_many_logins"
    status = 429

    def __init__(self, scope: str, seconds: float) -> None:
        self.scope = scope
        super().__init__(
            f"Too many failed logins {scope}. Try again in {_span(seconds)}.",
            retry_after=max(1, math.ceil(seconds)),
        )


class LoginsBusy(LlamactlError):
    """A login that found too many others waiting for their passwords to be compared."""

    code = "too_many_logins"
    status = 503

    def __init__(self) -> None:
        super().__init__("Too many logins at once. Try again in 10 seconds.", retry_after=10)


def _span(seconds: float) -> str:
    if seconds <= 90:
        count, unit = max(1, math.ceil(seconds)), "second"
    else:
        count, unit = math.ceil(seconds / 60), "minute"
    return f"{count} {unit}" + ("s" if count != 1 else "")
