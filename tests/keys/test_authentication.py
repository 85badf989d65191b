from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from pydantic import SecretStr

from keys.issuing import issue

PATH = "/api/v1/version"
MISSING = {"error": {"message": "Missing API key", "type": "authentication_error"}}
INVALID = {"error": {"message": "Invalid API key", "type": "authentication_error"}}


def test_a_management_key_opens_from_each_place(management_key: str) -> None:
    for headers, path in [
        ({"authorization": f"Bearer {management_key}"}, PATH),
        ({"x-api-key": management_key}, PATH),
        ({}, f"{PATH}?api_key={management_key}"),
        ({}, f"{PATH}?api_key={management_key}&api_key=second"),
        ({"authorization": f"Bearer {management_key}", "x-api-key": "wrong"}, PATH),
        ({"authorization": f"bearer {management_key}"}, PATH),
    ]:
        assert Client(headers=headers).get(path).status_code == 200, (headers, path)


def test_without_a_key_it_is_missing() -> None:
    response = Client().get(PATH)
    assert (response.status_code, response.json()) == (401, MISSING)
    assert response["WWW-Authenticate"] == "Bearer"
    assert Client(headers={"authorization": "Bearer "}).get(PATH).json() == MISSING


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
def test_a_wrong_key_is_invalid(headers: dict[str, str]) -> None:
    response = Client(headers=headers).get(PATH)
    assert (response.status_code, response.json()) == (401, INVALID)


def test_a_right_key_does_not_mend_a_wrong_one_before_it(management_key: str) -> None:
    headers = {"authorization": "Bearer wrong", "x-api-key": management_key}
    assert Client(headers=headers).get(PATH).status_code == 401


@pytest.mark.parametrize(
    "query", ["api_key=%00", "api_key=%FF%FE", "api_key=%ED%A0%80", "a&" * 2000]
)
def test_a_hostile_query_is_refused(query: str) -> None:
    response = Client().get(f"{PATH}?{query}")
    assert response.status_code in (400, 401)
    assert "error" in response.json()


def test_a_key_with_other_letters_works(override: Any) -> None:
    override(auth={"management_keys": [SecretStr("schlüssel-😀")]})
    sent = "schlüssel-😀".encode().decode("latin-1")
    assert Client(headers={"x-api-key": sent}).get(PATH).status_code == 200
    assert Client().get(f"{PATH}?api_key=schl%C3%BCssel-%F0%9F%98%80").status_code == 200


@pytest.mark.django_db
def test_an_inference_key_never_opens_management() -> None:
    _, plain = issue(name="app", permission_mode="allow_all")
    assert Client(headers={"x-api-key": plain}).get(PATH).json() == INVALID


def test_without_required_keys_everyone_is_let_in(override: Any) -> None:
    override(auth={"require_management_auth": False})
    assert Client().get(PATH).status_code == 200
    assert Client(headers={"x-api-key": "wrong"}).get(PATH).status_code == 200


def test_a_login_to_the_admin_is_no_key(admin_client: Client) -> None:
    # It should not be reachable by cookie: the API has no protection against forged requests.
    assert admin_client.get(PATH).json() == MISSING
