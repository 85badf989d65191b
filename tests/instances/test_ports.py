from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from instances.ports import has_connections, is_bindable


def test_listener_is_seen_on_its_own_address_and_behind_the_wildcard() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not is_bindable(port)
        assert not is_bindable(port, "0.0.0.0")
    assert is_bindable(port)


SERVER = """
import socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, getattr(socket, sys.argv[1]), 1)
listener.bind(("127.0.0.1", 0))
listener.listen()
print(listener.getsockname()[1], flush=True)
accepted = [listener.accept() for _ in range(2)]
print("accepted", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("option", ["SO_REUSEADDR", "SO_REUSEPORT"])
def test_connections_of_a_killed_server_do_not_count_as_a_listener(option: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", SERVER, option],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        with (
            socket.create_connection(("127.0.0.1", port)),
            socket.create_connection(("127.0.0.1", port)) as leaving,
        ):
            assert server.stdout.readline() == b"accepted\n"
            # A server that shares its port should be seen all the same.
            assert not is_bindable(port)
            server.kill()
            server.wait(10)
            # The one connection is half closed, the other waits for its time to pass.
            leaving.close()
            assert is_bindable(port)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_connections_are_seen_on_the_side_that_listens(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        assert not has_connections(port)
        with socket.create_connection((address, port)):
            accepted, _ = server.accept()
            with accepted:
                assert has_connections(port)
        assert not has_connections(port)
