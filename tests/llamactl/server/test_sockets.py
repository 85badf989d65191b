"""The listening sockets of the web address."""

from __future__ import annotations

import socket

import pytest

from llamactl.server.sockets import AddressUnusable, close_all, is_loopback, listen, local_host


def test_clients_can_connect_before_a_process_accepts() -> None:
    listeners = listen("127.0.0.1", 0)
    try:
        socket.create_connection(listeners[0].getsockname(), timeout=5).close()
    finally:
        close_all(listeners)
        close_all(listeners)


def test_a_port_in_use_is_named_with_the_setting_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(AddressUnusable) as refusal:
            listen("127.0.0.1", port)
    assert str(refusal.value) == (
        f"port {port} on 127.0.0.1 is in use; set LLAMACTL_PORT or server.port"
    )


def test_a_port_that_is_in_use_on_one_of_two_addresses_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(AddressUnusable):
        listen("localhost", other.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("192.0.2.1", "192.0.2.1 is not an address of this machine"),
        ("no such host", "the host 'no such host' has no address"),
        ("x" * 300, "has no address"),
    ],
)
def test_an_unusable_host_is_named(host: str, problem: str) -> None:
    with pytest.raises(AddressUnusable, match=problem):
        listen(host, 8080)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("gpu-host", False),
    ],
)
def test_loopback_addresses_are_told_from_others(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "local"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("gpu-host", "gpu-host")],
)
def test_the_url_has_an_address_that_this_machine_reaches(host: str, local: str) -> None:
    assert local_host(host) == local
