#!/usr/bin/env python3
"""A worker as far as the supervisor goes: a process that owns the node until SIGTERM or SIGKILL."""

from __future__ import annotations

import os
import signal

import django


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llamactl.settings")
    django.setup()
    from instances.supervisor import Supervisor
    from llamactl.config import current

    supervisor = Supervisor(
        current().local_node,
        current(),
        key_for=lambda instance_id, launch_id: f"key-{instance_id}",
    )
    supervisor.start()
    signal.sigwait([signal.SIGTERM])
    supervisor.stop()


if __name__ == "__main__":
    main()
