"""Management keys: where a request may hold one, and which requests are refused."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from pydantic import SecretStr

from keys.issuing import issue
from llamactl.core.errors import MissingKey

PATH = "/api/v1/version"
MISSING = {"error": {"message": MissingKey().details, "type": "authentication_error"}}
INVALID = {"error": {"message": "Invalid API key", "type": "authentication_error"}}


def test_management_key_is_accepted_from_each_place(management_key: str) -> None:
    for headers, path in [
        ({"authorization": f"Bearer {management_key}"}, PATH),
        ({"x-api-key": management_key}, PATH),
        ({}, f"{PATH}?api_key={management_key}"),
        ({}, f"{PATH}?api_key={management_key}&api_key=second"),
        ({"authorization": f"Bearer {management_key}", "x-api-key": "wrong"}, PATH),
        ({"authorization": f"bearer {management_key}"}, PATH),
        ({"authorization": f"BEARER   {management_key}  "}, PATH),
        ({"authorization": f"Bearer\t{management_key}"}, PATH),
    ]:
        assert Client(headers=headers).get(path).status_code == 200, (headers, path)


def test_request_without_a_key_is_401() -> None:
    response = Client().get(PATH)
    assert (response.status_code, response.json()) == (401, MISSING)
    assert response["WWW-Authenticate"] == "Bearer"
    assert response["x-should-retry"] == "false"
    assert Client(headers={"authorization": "Bearer "}).get(PATH).json() == MISSING


@pytest.mark.parametrize(
    "value", ["{}", "Token {}", "Basic {}", "Bearer:{}", "Bearer", "ApiKey {}"]
)
def test_authorization_without_bearer_is_told_each_way(management_key: str, value: str) -> None:
    headers = {"authorization": value.format(management_key)}
    response = Client(headers=headers).get(PATH)
    assert (response.status_code, response.json()) == (401, MISSING)
    assert response["WWW-Authenticate"] == "Bearer"
    # It should be no place where a key is repeated: errors end up in logs.
    assert management_key not in response.content.decode()


@pytest.mark.parametrize("header", ["api-key", "apikey", "x-goog-api-key", "x-auth-token"])
def test_key_in_another_header_is_told_each_way(management_key: str, header: str) -> None:
    assert Client(headers={header: management_key}).get(PATH).json() == MISSING


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"x-api-key": "wrong"},
        {"authorization": "Bearer \xff\xfe"},
        {"authorization": "Bearer " + "x" * 50_000},
        {"authorization": "Bearer wrong, Bearer wrong"},
    ],
)
def test_wrong_key_is_401(headers: dict[str, str]) -> None:
    response = Client(headers=headers).get(PATH)
    assert (response.status_code, response.json()) == (401, INVALID)
    assert (response["WWW-Authenticate"], response["x-should-retry"]) == ("Bearer", "false")


def test_wrong_key_in_an_earlier_place_wins_over_a_right_key(management_key: str) -> None:
    headers = {"authorization": "Bearer wrong", "x-api-key": management_key}
    assert Client(headers=headers).get(PATH).status_code == 401


@pytest.mark.parametrize(
    "query", ["api_key=%00", "api_key=%FF%FE", "api_key=%ED%A0%80", "a&" * 2000]
)
def test_hostile_query_is_refused(query: str) -> None:
    response = Client().get(f"{PATH}?{query}")
    assert response.status_code in (400, 401)
    assert "error" in response.json()


def test_key_with_non_ascii_letters_is_accepted(override: Any) -> None:
    override(auth={"management_keys": [SecretStr("schlüssel-😀")]})
    sent = "schlüssel-😀".encode().decode("latin-1")
    assert Client(headers={"x-api-key": sent}).get(PATH).status_code == 200
    assert Client().get(f"{PATH}?api_key=schl%C3%BCssel-%F0%9F%98%80").status_code == 200


@pytest.mark.django_db
def test_inference_key_never_opens_management() -> None:
    _, plain = issue(name="app", permission_mode="allow_all")
    assert Client(headers={"x-api-key": plain}).get(PATH).json() == INVALID


def test_no_key_is_needed_where_none_is_required(override: Any) -> None:
    override(auth={"require_management_auth": False})
    assert Client().get(PATH).status_code == 200
    assert Client(headers={"x-api-key": "wrong"}).get(PATH).status_code == 200


def test_admin_session_is_not_a_key(admin_client: Client) -> None:
    # It should not be reachable by cookie: the API has no protection against forged requests.
    assert admin_client.get(PATH).json() == MISSING
