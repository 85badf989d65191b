"""llamactl: a control server for LLM backend processes.

Nothing is imported but the version: the foreground process of ``manage.py run`` needs neither
Celery nor the config. ``llamactl.apps`` imports the Celery app.
"""

from __future__ import annotations

import gc

from llamactl.version import VERSION

__all__ = ["__version__"]

__version__ = VERSION

# The imports of a start make 140,000 objects that stay. With Python's own thresholds the collector
# walks them again and again: a tenth of the CPU time of a start. A web process that serves sets
# thresholds of its own (``proxy.asgi``).
gc.set_threshold(10_000, 20, 50)
