"""Aliases: what they may be, and the one rule over all names."""

from __future__ import annotations

from typing import Any

import pytest

from instances import lifecycle
from instances.errors import AliasTaken, InstanceExists, InvalidInstance
from instances.models import Instance
from instances.options import InstanceOptions
from llamactl.config import current
from llamactl.core.errors import LlamactlError

pytestmark = pytest.mark.django_db


def create(name: str, *aliases: str, **changes: object) -> Instance:
    document: dict[str, object] = {"backend_options": {"model": "/m.gguf"}, **changes}
    if aliases:
        document["aliases"] = list(aliases)
    return lifecycle.create(name, document, cause="test")


def update(name: str, *aliases: str) -> lifecycle.Update:
    return lifecycle.update(name, {"aliases": list(aliases)}, cause="test")


ODD = ["gpt-4o", "owner/model:tag", "[m] (v2) @ 名", "a"]


def test_any_printable_text_is_an_alias_once() -> None:
    assert create("a1", *ODD, "gpt-4o").options["aliases"] == ODD
    assert InstanceOptions.from_document(Instance.objects.get().options).aliases == ODD


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ([""], "aliases must be texts"),
        ([" a"], "aliases must be texts"),
        (["a\n"], "aliases must be texts"),
        (["a\u202eb"], "aliases must be texts"),
        (["\ud800"], "aliases must not contain half of a surrogate pair"),
        (["x" * 201], "aliases must be texts"),
        ([str(number) for number in range(33)], "aliases must be at most 32"),
        ("gpt-4o", "aliases must be a list"),
        ([1], "aliases.0 must be a string"),
    ],
)
def test_anything_else_is_refused_by_the_field(aliases: Any, message: str) -> None:
    with pytest.raises(LlamactlError, match=message):
        InstanceOptions.parse({"aliases": aliases}, current())


@pytest.mark.parametrize(
    ("alias", "owner"),
    [
        ("one", "the name of an instance"),
        ("two", "the name of an instance"),
        ("gpt-4o", "an alias of the instance one"),
    ],
)
def test_alias_that_is_taken_is_refused(alias: str, owner: str) -> None:
    create("one", "gpt-4o")
    with pytest.raises(AliasTaken, match=f"aliases: '{alias}' is {owner}") as refusal:
        create("two", alias)
    assert refusal.value.status == 409
    create("two")
    with pytest.raises(AliasTaken):
        update("two", "free", alias)
    assert "aliases" not in Instance.objects.get(name="two").options


def test_own_name_is_no_alias() -> None:
    with pytest.raises(AliasTaken):
        create("one", "one")


def test_name_that_is_an_alias_is_refused() -> None:
    create("one", "two")
    with pytest.raises(InstanceExists, match="name two is an alias of the instance one"):
        create("two")


def test_alias_is_free_again_after_its_removal() -> None:
    create("one", "gpt-4o")
    assert not update("one").is_restarted
    create("two", "gpt-4o")
    lifecycle.delete("two", cause="test")
    assert update("one", "gpt-4o").is_changed


def test_an_update_keeps_its_own_aliases() -> None:
    create("one", "gpt-4o")
    assert not update("one", "gpt-4o").is_changed
    assert update("one", "gpt-4o", "other").is_changed


def test_wrong_alias_is_no_other_error() -> None:
    with pytest.raises(InvalidInstance):
        create("one", "x" * 201)
