"""Node operations of the API."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pydantic import SecretStr

from llamactl.config import NodeConfig
from nodes.models import Node

pytestmark = pytest.mark.django_db
NODES = "/api/v1/nodes"


def test_local_node_is_always_listed(api: Client) -> None:
    assert api.get(NODES).json() == {"main": {"address": ""}}
    assert api.get(f"{NODES}/main").json() == {"address": ""}


def test_configured_nodes_and_workers_are_listed_by_name(api: Client, settings: Any) -> None:
    settings.LLAMACTL = settings.LLAMACTL.model_copy(
        update={
            "nodes": {
                "main": NodeConfig(),
                "peer": NodeConfig(address="http://peer:8080", api_key=SecretStr("secret")),
            }
        }
    )
    Node.objects.create(name="gpu1", address="10.0.0.7")
    Node.objects.create(name="peer", address="http://elsewhere")
    response = api.get(NODES)
    assert list(response.json().items()) == [
        ("gpu1", {"address": "10.0.0.7"}),
        ("main", {"address": ""}),
        # It should believe the configuration, and never show a node's key.
        ("peer", {"address": "http://peer:8080"}),
    ]
    assert "secret" not in response.content.decode()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://olga:s3cret@peer:8080", "http://olga:***@peer:8080"),
        ("http://s3cret@peer:8080/x", "http://***@peer:8080/x"),
        ("https://peer/?token=s3cret&a=1", "https://peer/?token=***&a=1"),
    ],
)
def test_secrets_in_the_address_of_a_node_are_masked(
    api: Client, settings: Any, address: str, shown: str
) -> None:
    settings.LLAMACTL = settings.LLAMACTL.model_copy(
        update={"nodes": {"peer": NodeConfig(address=address)}}
    )
    Node.objects.create(name="gpu1", address=address)
    assert api.get(NODES).json() == {"gpu1": {"address": shown}, "peer": {"address": shown}}
    for name in ("peer", "gpu1"):
        assert api.get(f"{NODES}/{name}").json() == {"address": shown}
    assert "s3cret" not in api.get("/api/v1/config").content.decode()
    operator = Client()
    operator.force_login(User.objects.create_superuser("olga"))
    node = Node.objects.get(name="gpu1")
    for page in ("", "nodes/node/", f"nodes/node/{node.pk}/change/"):
        text = operator.get(f"/admin/{page}").content.decode()
        assert "gpu1" in text
        assert "s3cret" not in text
    assert "gpu1" not in operator.get("/admin/nodes/node/?q=s3cret").content.decode()


@pytest.mark.parametrize("name", ["%00", "x" * 5000, "main%0A", "a%20node"])
def test_invalid_node_name_is_400(api: Client, name: str) -> None:
    response = api.get(f"{NODES}/{name}")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert len(response.content) < 1000


@pytest.mark.parametrize("name", ["other", "%F0%9F%98%80", "x" * 100, "MAIN"])
def test_unknown_node_is_404(api: Client, name: str) -> None:
    response = api.get(f"{NODES}/{name}")
    assert (response.status_code, response.json()["error"]) == (404, "not_found")
    assert len(response.content) < 1000
