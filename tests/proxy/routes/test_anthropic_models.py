"""GET /v1/models as Anthropic's clients ask: shape, pages, and errors."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.asgi import ProxyApplication
from tests.proxy.conftest import ALICE, BOB, Backend, TableGateway, make_target
from tests.support.asgi import AsgiRequest, AsgiResponse

VERSION = [(b"anthropic-version", b"2023-06-01")]
NAMES = [f"m{number:02}" for number in range(25)]


@pytest.fixture(autouse=True)
def table(gateway: TableGateway, backend: Backend) -> None:
    gateway.lay(*(make_target(backend.origin, id=i, name=name) for i, name in enumerate(NAMES)))


async def ask(
    app: ProxyApplication, query: str = "", model: str = "", key: str | None = ALICE
) -> AsgiResponse:
    path = f"/v1/models/{model}" if model else "/v1/models"
    return await AsgiRequest(
        app, path, method="GET", key=key, headers=list(VERSION), query=query.encode()
    ).finish()


def ids(answer: AsgiResponse) -> list[str]:
    return [model["id"] for model in answer.json()["data"]]


async def test_list_has_anthropics_shape(app: ProxyApplication) -> None:
    document = (await ask(app)).json()
    assert document["data"][0] == {
        "type": "model",
        "id": "m00",
        "display_name": "m00",
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
    }
    assert len(document["data"]) == 20
    assert (document["has_more"], document["first_id"], document["last_id"]) == (True, "m00", "m19")


async def test_model_is_the_entry_of_the_list(app: ProxyApplication) -> None:
    assert (await ask(app, model="m00")).json() == (await ask(app)).json()["data"][0]


@pytest.mark.parametrize(
    ("query", "expected", "has_more"),
    [
        ("after_id=m19", NAMES[20:], False),
        ("after_id=m24", [], False),
        ("after_id=m03&limit=2", ["m04", "m05"], True),
        ("limit=1000&beta=true&api_key=x", NAMES, False),
        ("before_id=m05&limit=2", ["m03", "m04"], True),
        ("before_id=m02", ["m00", "m01"], False),
        ("before_id=m00", [], False),
        ("limit=25", NAMES, False),
    ],
)
async def test_pages(
    app: ProxyApplication, query: str, expected: list[str], has_more: bool
) -> None:
    answer = await ask(app, query)
    document = answer.json()
    assert (ids(answer), document["has_more"]) == (expected, has_more)
    ends = (expected[0], expected[-1]) if expected else (None, None)
    assert (document["first_id"], document["last_id"]) == ends


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=", "limit=-1", "limit=x", "limit=%C2%B2", "limit=1e3"),
        *("after_id=nope", "before_id=", "after_id=m01&before_id=m03"),
    ],
)
async def test_wrong_parameter_is_400_that_names_it(app: ProxyApplication, query: str) -> None:
    answer = await ask(app, query)
    document: Any = answer.json()
    assert (answer.status, document["type"]) == (400, "error")
    assert document["error"]["type"] == "invalid_request_error"
    assert query.partition("=")[0] in document["error"]["message"]


@pytest.mark.parametrize(
    ("key", "model", "status", "kind"),
    [
        (ALICE, "nope", 404, "not_found_error"),
        (BOB, "m01", 403, "permission_error"),
        (None, "m01", 401, "authentication_error"),
        (None, "", 401, "authentication_error"),
    ],
)
async def test_errors_have_anthropics_shape(
    app: ProxyApplication, key: str | None, model: str, status: int, kind: str
) -> None:
    answer = await ask(app, model=model, key=key)
    document = answer.json()
    assert (answer.status, document["type"], document["error"]["type"]) == (status, "error", kind)


async def test_without_the_header_pages_are_no_concern(app: ProxyApplication) -> None:
    answer = await AsgiRequest(
        app, "/v1/models", method="GET", key=ALICE, query=b"limit=1"
    ).finish()
    assert (answer.json()["object"], len(answer.json()["data"])) == ("list", 25)
