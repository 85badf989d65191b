from __future__ import annotations

import socket

from instances.ports import is_bindable


def test_listener_is_seen_on_its_own_address_and_behind_the_wildcard() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not is_bindable(port)
        assert not is_bindable(port, "0.0.0.0")
    assert is_bindable(port)
