"""gunicorn worker class: the web process of ``manage.py run`` under gunicorn's process manager.

gunicorn adds a rolling restart of several web processes: after SIGHUP new processes load the
installed code, and the old ones finish their requests. gunicorn's master process imports this
module and forks the workers, so this module imports nothing of llamactl that a reload has to load
anew; see docs/deploy for the configuration.
"""

from __future__ import annotations

import sys

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

OWN_PACKAGES = frozenset({"instances", "keys", "llamactl", "nodes", "proxy"})


class WebWorker(UvicornWorker):  # type: ignore[misc] # untyped
    """A worker with llamactl's HTTP and WebSocket protocols, bounds, accept loop and shutdown."""

    def init_process(self) -> None:
        """Load llamactl in the new process, and serve."""
        forget_own_modules()
        # After the fork, for the installed code instead of the code that the master has loaded.
        from llamactl.server.web import gunicorn_server

        self.server = gunicorn_server.WorkerServer(self)
        self.config = self.server.config
        super().init_process()

    async def _serve(self) -> None:
        """Serve as uvicorn's worker does, by llamactl's server."""
        self.config.app = self.wsgi
        self._install_sigquit_handler()
        await self.server.serve(sockets=self.sockets)
        if not self.server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


def forget_own_modules() -> None:
    """Unload llamactl's modules, of which the master process has imported a few."""
    for name in list(sys.modules):
        if name.partition(".")[0] in OWN_PACKAGES:
            del sys.modules[name]
