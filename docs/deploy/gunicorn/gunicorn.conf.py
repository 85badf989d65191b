"""gunicorn's configuration for llamactl's web processes; read at the start and at each reload.

    python -m gunicorn -c docs/deploy/gunicorn/gunicorn.conf.py llamactl.asgi:application

Address and number of processes are server.host, server.port and server.web_processes of llamactl's
configuration.
"""

import json
import subprocess
import sys

# In a process of its own: modules imported here would stay as they are over a reload.
_settings = json.loads(
    subprocess.check_output([sys.executable, "-m", "llamactl.server.web.gunicorn_settings"])
)

bind = _settings["bind"]
workers = _settings["workers"]
backlog = _settings["backlog"]
worker_class = "llamactl.server.web.gunicorn_worker.WebWorker"

# Grace period of a stop and of a rolling restart: streams that take longer are cut.
graceful_timeout = 60

# A process that does not answer gunicorn for so long is killed.
timeout = 30

# The socket of gunicornc, an operator's tool, would lie in a directory that the unit protects.
control_socket_disable = True

loglevel = "warning"
proc_name = "llamactl-web"
