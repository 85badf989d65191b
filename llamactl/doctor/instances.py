"""Check of the instances' options for values of a changed meaning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from llamactl.doctor.diagnosis import Diagnosis, note

SUBJECT = "instances"
MAX_LISTED = 8


def diagnose_idle_timeouts(
    options: Iterable[tuple[str, Mapping[str, object]]],
) -> Iterator[Diagnosis]:
    """List the instances that an ``idle_timeout`` of 0 kept from being preempted until 0.1."""
    names = sorted(
        name
        for name, document in options
        if document.get("idle_timeout") == 0
        and document.get("idle_timeout") is not False
        and not document.get("pinned")
    )
    if names:
        more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
        yield note(
            SUBJECT,
            f"{', '.join(names[:MAX_LISTED])}{more}: idle_timeout is 0, which no longer keeps an"
            " instance from being preempted at a limit",
            "set pinned to true where it must keep its capacity",
        )
