"""Request defaults in the options: what they may be, and how they are prepared."""

from __future__ import annotations

from typing import Any

import pytest

from instances import lifecycle
from instances.options import InstanceOptions
from llamactl.config import current
from llamactl.core.errors import LlamactlError
from proxy.table.refresh import read_targets

REQUEST = {"set": {"temperature": 0.2, "seed": 2**70, "stop": ["\u2028", {"a": None}]}}


def test_the_document_is_kept_as_it_is() -> None:
    request = {**REQUEST, "drop": ["logit_bias"]}
    options = InstanceOptions.parse({"request": request}, current())
    assert options.to_document()["request"] == request
    assert InstanceOptions.from_document(options.to_document()) == options
    assert "request" not in InstanceOptions.parse({"request": None}, current()).to_document()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"drop": ["model"]}, "request.drop must not name model"),
        ({"set": {"model": "x"}}, "request.set must not name model"),
        ({"drop": ["a", ""]}, "request.drop must be names"),
        ({"drop": ["\ud800"]}, "request.drop must not contain half of a surrogate pair"),
        ({"set": {"x" * 201: 1}}, "request.set must be names"),
        ({"drop": [str(number) for number in range(101)]}, "request.drop must be at most 100"),
        ({"set": {"a": "x" * 70_000}}, "request.set must be at most 65536 bytes"),
        ({"set": {"\ud800": 1}}, "a name in request.set must not contain half of a surrogate"),
        ({"set": {"a": [{"b": "\x00"}]}}, "request.set.a.b must not contain a NUL"),
        ({"set": {"a": float("nan")}}, "request.set must have JSON values"),
        ({"sett": {}}, "request: 'sett' is not known"),
        ({"drop": "a"}, "request.drop must be a list"),
        ({"drop": [1]}, "request.drop.0 must be a string"),
        ({"set": []}, "request.set must be an object"),
        ([], "request must be an object"),
    ],
)
def test_anything_else_is_refused_by_the_field(request_: Any, message: str) -> None:
    with pytest.raises(LlamactlError, match=message) as refusal:
        InstanceOptions.parse({"request": request_}, current())
    assert refusal.value.status == 400


@pytest.mark.django_db
def test_a_change_of_the_defaults_restarts_nothing_and_reaches_the_table() -> None:
    lifecycle.create("a", {"backend_options": {"model": "/m.gguf"}}, cause="test")
    lifecycle.request_start("a", cause="test")
    assert read_targets()["a"].request_defaults is None
    update = lifecycle.update(
        "a", {"request": {**REQUEST, "drop": ["x"]}, "aliases": ["b"]}, cause="test"
    )
    assert (update.is_changed, update.is_restarted) == (True, False)
    target = read_targets()["a"]
    assert target.aliases == ("b",)
    assert target.request_defaults is not None
    assert target.request_defaults.dropped == {"x"}
    assert target.request_defaults.members == {
        "temperature": b'"temperature":0.2',
        "seed": b'"seed":1180591620717411303424',
        "stop": b'"stop":["\\u2028",{"a":null}]',
    }
