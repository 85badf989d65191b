"""A stand-in for a service: ``stand_in_service.py DIRECTORY NAME [KNOB…]``.

Writes its events to DIRECTORY/events and its pid to DIRECTORY/NAME.pid, which says that it is
ready. Knobs: ``stubborn`` ignores SIGTERM, ``exit=N`` ends at once with code N, ``beating`` sends
its parent heartbeats.
"""

import os
import signal
import sys
import time


def main() -> None:
    directory, name, *knobs = sys.argv[1:]

    def note(event: str) -> None:
        descriptor = os.open(f"{directory}/events", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, f"{event} {name}\n".encode())
        os.close(descriptor)

    def end(*_: object) -> None:
        note("stop")
        os._exit(0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in knobs else end)
    note("start")
    for knob in knobs:
        if knob.startswith("exit="):
            os.write(2, f"{name} says goodbye\n".encode())
            os._exit(int(knob.removeprefix("exit=")))
    with open(f"{directory}/{name}.draft", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{directory}/{name}.draft", f"{directory}/{name}.pid")
    while "beating" in knobs:
        os.write(int(os.environ["_LLAMACTL_HEARTBEAT_FD"]), b"\0")
        time.sleep(0.01)
    while True:
        signal.pause()


main()
