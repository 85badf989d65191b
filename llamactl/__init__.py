"""llamactl: a control server for LLM backend processes.

Nothing is imported but the version: the foreground process of ``manage.py run`` needs neither
Celery nor the config. ``llamactl.apps`` imports the Celery app.
"""

from __future__ import annotations

from llamactl.version import VERSION

__all__ = ["__version__"]

__version__ = VERSION
