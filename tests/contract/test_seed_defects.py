"""Defects of the Go program that cross several subjects, and the page that lists them all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest
from django.test import Client

from instances.backends.registry import backend_for
from keys.secrets import digest
from proxy.auth import rule_for
from proxy.table.table import KeyRule, RoutingTable
from tests.support.paths import ROOT


@pytest.mark.django_db
@pytest.mark.parametrize("action", ["start", "start?wait=1", "restart"])
def test_a_start_that_can_not_be_is_no_conflict(api: Client, action: str) -> None:
    # In the seed every failed start is 409 max_instances_reached.
    response = api.post(f"/api/v1/instances/nobody/{action}")
    assert (response.status_code, response.json()["error"]) == (404, "invalid_instance")


@pytest.mark.parametrize("name", ["lora_modules", "prompt_adapters"])
def test_lists_of_adapters_survive_the_round_trip(name: str) -> None:
    # The seed's parser makes lists of them where its options want texts, so it always fails.
    vllm = backend_for("vllm")
    flag = "--" + name.replace("_", "-")
    options = vllm.parse_command(f"vllm serve m {flag} a=/x b=/y").backend_options
    assert options == {"model": "m", name: ["a=/x", "b=/y"]}
    assert vllm.build_args(options) == ["m", flag, "a=/x", "b=/y"]


class LookUpsOnly(Mapping[bytes, KeyRule]):
    """Keys that can be looked up one at a time; an iteration over them fails the test."""

    def __init__(self, rules: dict[bytes, KeyRule]) -> None:
        self._rules = rules
        self.lookups = 0

    def __getitem__(self, key: bytes) -> KeyRule:
        self.lookups += 1
        return self._rules[key]

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("every key was tried")

    def __len__(self) -> int:
        raise AssertionError("the keys were counted")


def test_a_key_is_looked_up_however_many_there_are() -> None:
    # There a slow hash is computed for one key after the other until one fits.
    digests = [digest(f"llamactl-{number}") for number in range(100)]
    keys = LookUpsOnly({each: KeyRule(at, each, None) for at, each in enumerate(digests)})
    found = rule_for([(b"x-api-key", b"llamactl-99")], b"", RoutingTable(keys=keys), 0.0)
    assert found.id == 99
    assert keys.lookups == 1


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 20
    for path, name in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{path}::{name}"
