"""Names of hosts that Django's request accepts."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.exceptions import DisallowedHost
from django.test import AsyncRequestFactory

from llamactl.core.host_request import HostRequest


def request_to(host: str) -> HostRequest:
    made: Any = AsyncRequestFactory().get("/")
    scope = {**made.scope, "headers": [(b"host", host.encode())]}
    return HostRequest(scope, io.BytesIO())


@pytest.mark.parametrize("host", ["llama_ctl", "_a.b:80", "a", "[::1]:80"])
def test_a_name_with_an_underscore_is_taken(host: str) -> None:
    assert request_to(host).get_host() == host
    assert request_to(host).build_absolute_uri("/x") == f"http://{host}/x"


@pytest.mark.parametrize("host", ["a_b c", "a_/b", "a_b@c", "a b", "_:x", ""])
def test_a_name_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(DisallowedHost):
        request_to(host).get_host()
