"""llamactl: a control server for LLM backend processes."""

from __future__ import annotations

from llamactl.celery import app as celery_app
from llamactl.version import VERSION

__all__ = ["__version__", "celery_app"]

__version__ = VERSION
