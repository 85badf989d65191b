"""``Instance.reported_status`` as a database condition, for filters and counts."""

from __future__ import annotations

from django.db.models import F, Q

from instances.states import DesiredState, Status

_WANTED = Q(desired_state=DesiredState.RUNNING)
_RESTING = Q(status__in=(Status.STOPPED, Status.FAILED))
_UNSEEN = Q(observed_generation__lt=F("generation"))


def with_reported_status(status: Status) -> Q:
    """Return the condition that selects the instances with this ``reported_status``."""
    observed = Q(status=status)
    match status:
        case Status.STOPPED | Status.FAILED:
            return observed & ~(_WANTED & _UNSEEN)
        case Status.STARTING:
            return _WANTED & (observed | _UNSEEN)
        case Status.SHUTTING_DOWN:
            return (_WANTED & observed & ~_UNSEEN) | (~_WANTED & ~_RESTING)
        case _:
            return _WANTED & observed & ~_UNSEEN
