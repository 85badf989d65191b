"""Id of this installation: marks its containers, where several installations use one docker."""

from __future__ import annotations

from django.conf import settings
from django.utils.crypto import salted_hmac


def installation_id() -> str:
    """Return eight hex digits that are the same as long as the data directory has its secret key.

    The path of the data directory is no such id: two llamactl in containers may both have ``/data``
    and one docker daemon.
    """
    return salted_hmac("llamactl.installation", "", secret=settings.SECRET_KEY).hexdigest()[:8]
