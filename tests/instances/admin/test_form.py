"""The form of an instance loses nothing on the way from a document to fields and back."""

from __future__ import annotations

import pytest

from instances import lifecycle
from instances.admin.form import SHORT_ROWS, InstanceForm
from instances.admin.form_values import SHORT_OPTIONS
from instances.backends.registry import BACKENDS
from instances.errors import InvalidInstance
from instances.models import Instance
from llamactl.config import current
from tests.instances.admin.test_form_values import posted


def test_every_backend_has_a_short_form_of_options_it_knows() -> None:
    assert set(SHORT_OPTIONS) == set(BACKENDS)
    for kind, options in SHORT_OPTIONS.items():
        for option in options:
            assert BACKENDS[kind].table.find(option) is not None, (kind, option)


def test_every_short_option_has_its_place_in_the_form() -> None:
    placed = {name for row in SHORT_ROWS for name in ([row] if isinstance(row, str) else row)}
    assert placed == {name for names in SHORT_OPTIONS.values() for name in names}


@pytest.mark.django_db
def test_document_of_an_untouched_edit_is_the_stored_one() -> None:
    document = {
        "backend_type": "llama_cpp",
        "backend_options": {
            "model": "/m.gguf",
            "ctx_size": 4096,
            "lora": ["a", "b"],
            "port": current().instances.port_range[0] + 7,
            "extra_args": {"new-flag": "\u202ex"},
        },
        "environment": {"A": "one\ntwo", "B": ' "quoted" '},
        "docker_enabled": False,
        "command_override": "/opt/llama-server",
        "group": "big",
        "working_directory": "/srv/models",
        "limits": {"nice": 5, "cpus": "0-1", "core_dumps": False},
        "max_restarts": 7,
        "aliases": ["gpt-4o", "owner/model:tag", "[m] 名"],
        "list_aliases": False,
        "request": {"set": {"temperature": 0.2, "seed": 2**70}, "drop": ["logit_bias"]},
    }
    stored = lifecycle.create("a", document, cause="test").options
    instance = Instance.objects.get()
    shown = InstanceForm(instance=instance).initial
    data = {
        name: posted(value) if isinstance(value, str) else value
        for name, value in shown.items()
        if value is not False
    }
    form = InstanceForm(data, instance=instance)
    assert form.is_valid(), form.errors
    assert form.to_document() == stored


@pytest.mark.django_db
def test_aliases_are_lines_as_a_browser_sends_them() -> None:
    shown = {name: value for name, value in InstanceForm().initial.items() if value is not False}
    lines = "gpt-4o\r\n\r\n  owner/model:tag \r\n"
    request = '{"set": {"top_k": 5}, "drop": ["model"]}'
    form = InstanceForm({**shown, "name": "x", "aliases": lines, "request": request})
    assert form.is_valid(), form.errors
    assert form.to_document()["aliases"] == ["gpt-4o", "owner/model:tag"]
    with pytest.raises(InvalidInstance, match=r"request\.drop must not name model") as refusal:
        lifecycle.create("x", form.to_document(), cause="test")
    assert form.refused_field(refusal.value) == "request"
