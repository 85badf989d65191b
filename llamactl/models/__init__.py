"""Tables that belong to no app of the product's own."""

from llamactl.models.login_attempts import LoginAttempts
from llamactl.models.revisions import Revision, Topic

__all__ = ["LoginAttempts", "Revision", "Topic"]
