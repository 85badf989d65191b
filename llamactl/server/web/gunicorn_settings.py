"""gunicorn settings from llamactl's configuration, as JSON on standard output.

docs/deploy/gunicorn/gunicorn.conf.py runs ``python -m llamactl.server.web.gunicorn_settings``.
gunicorn's master process executes that file and must not import llamactl itself: workers forked
after a reload would get the old code.
"""

from __future__ import annotations

import json
import sys

from instances.backends.registry import config_sections
from llamactl.config import AppConfig, ConfigError, load
from llamactl.server.sockets import BACKLOG


def gunicorn_settings(config: AppConfig) -> dict[str, object]:
    server = config.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    return {
        "bind": [f"{host}:{port}" for port in (server.port, server.ui_port) if port],
        "workers": config.server.web_processes,
        "backlog": BACKLOG,
    }


def main() -> int:
    try:
        config = load(backends=config_sections())
    except ConfigError as error:
        sys.stderr.write("\n".join([*error.lines, ""]))
        return 2
    sys.stdout.write(json.dumps(gunicorn_settings(config)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
