"""Urlencoded forms: the values that Django's own parser finds, in little memory."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import BadRequest, TooManyFieldsSent
from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st

from llamactl.core.form_request import STEP_BYTES, FormRequest, form_values
from tests.support.loop_stall import measured_memory


def request(body: bytes, content_type: str = "application/x-www-form-urlencoded") -> Any:
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    return FormRequest(scope, BytesIO(body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"&&a=1&",
        b"a",
        b"a=1&a=2&b=",
        b"a=b=c&=d",
        b"a=x+y%2Bz&%61=%C3%BC%F0%9F%98%80",
        b"a=%zz%4&b=%",
        b"a=%ff%fe",
        "a=ü😀".encode(),
        b"a=1;b=2",
        b"a=%0D%0Aline&b=%00",
        b"a=" + b"x" * (STEP_BYTES - 1) + b"%C3%BC%41",
        b"a=" + b"%41" * STEP_BYTES + b"%",
        b"a=" + b"%" * 2 * STEP_BYTES,
    ],
)
def test_values_are_those_of_django(body: bytes) -> None:
    assert QueryDict(body, encoding="utf-8") == request(body).POST


@given(st.lists(st.sampled_from(b"a=&%+;4C3BCf\xc3\xbc"), max_size=40))
def test_any_values_are_those_of_django(characters: list[int]) -> None:
    body = bytes(characters)
    assert form_values(body) == QueryDict(body, encoding="utf-8")


def test_values_can_not_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        request(b"a=1").POST["a"] = "2"


def test_fields_are_counted() -> None:
    most = settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
    assert len(request(b"&".join(b"%d=" % number for number in range(most))).POST) == most
    with pytest.raises(TooManyFieldsSent):
        _ = request(b"&" * most).POST


def test_another_charset_is_refused_as_by_django() -> None:
    with pytest.raises(BadRequest):
        _ = request(b"a=1", "application/x-www-form-urlencoded; charset=latin-1").POST
    assert request(b"a=1", "application/x-www-form-urlencoded; charset=utf-8").POST["a"] == "1"


def test_percent_sequences_take_little_memory() -> None:
    body = b"a=" + b"%41" * 700_000
    with measured_memory() as peak:
        assert len(form_values(body)["a"]) == 700_000
    assert peak.grown_bytes < 3 * len(body)
