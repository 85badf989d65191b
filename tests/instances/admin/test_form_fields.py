"""A field of the options model is all that a new option needs."""

from __future__ import annotations

import pytest
from django import forms
from pydantic import Field
from pydantic.fields import FieldInfo

from instances.admin.form import InstanceForm, process_rows
from instances.admin.form_fields import form_field
from instances.api.options_schema import options_schema
from instances.option_types import Count, Text
from instances.options import InstanceOptions
from llamactl.config import current


class MoreOptions(InstanceOptions):
    """The instance options, and one new option of each simple type."""

    colour: Text = Field(default="", title="Colour", description="Colour of the `label`.")
    is_quiet: bool = Field(default=False, title="Quiet")
    retries: Count = Field(default=2, title="Retries")
    may_log: bool | None = Field(default=None, title="May log")


class MoreOptionsForm(InstanceForm):
    options_model = MoreOptions


NEW = {"colour": "red", "is_quiet": True, "retries": 5, "may_log": False}


def test_a_new_option_is_parsed_saved_and_loaded() -> None:
    options = MoreOptions.parse(NEW, current())
    assert options.to_document() == InstanceOptions.parse({}, current()).to_document() | NEW
    assert MoreOptions.from_document(options.to_document()) == options
    # It should load a row of the release that did not have the option, and leave its default out.
    saved = InstanceOptions.parse({}, current()).to_document()
    assert MoreOptions.from_document(saved).to_document() == saved


def test_a_new_option_is_in_the_schema_of_requests_and_responses() -> None:
    request = options_schema(MoreOptions, is_request=True)["properties"]
    assert request["colour"] == {
        "description": "Colour of the `label`.",
        "type": ["string", "null"],
    }
    assert request["may_log"] == {"type": ["boolean", "null"]}
    response = options_schema(MoreOptions, is_request=False)
    assert response["properties"]["retries"] == {"type": "integer", "minimum": 0}
    assert "retries" not in response["required"]


@pytest.mark.django_db
def test_a_new_option_has_a_field_and_a_place_in_the_form() -> None:
    form = MoreOptionsForm()
    assert process_rows(MoreOptions)[-4:] == tuple(NEW)
    assert form.initial["retries"] == 2
    assert (form.fields["colour"].label, form.fields["colour"].help_text) == (
        "Colour",
        "Colour of the label.",
    )
    shown = {name: value for name, value in form.initial.items() if value is not False}
    posted = {"colour": "red", "is_quiet": "on", "retries": "5", "may_log": "false"}
    filled = MoreOptionsForm({**shown, **posted, "name": "x"})
    assert filled.is_valid(), filled.errors
    assert MoreOptions.parse(filled.to_document(), current()) == MoreOptions.parse(NEW, current())


@pytest.mark.django_db
def test_every_option_is_in_document_schema_and_form() -> None:
    names = set(InstanceOptions.model_fields)
    schema = options_schema(InstanceOptions, is_request=True)["properties"]
    assert set(schema) == names
    assert all(option["description"] for option in schema.values())
    form = InstanceForm()
    shown = set(form.fields) | {"backend_options"} | ({"nodes"} if "node" in form.fields else set())
    assert names <= shown


def test_an_option_of_an_unknown_type_is_an_error_of_the_developer() -> None:
    with pytest.raises(TypeError, match="no field for an option of type"):
        form_field(FieldInfo(annotation=frozenset[str]))
    assert isinstance(form_field(InstanceOptions.model_fields["idle_timeout"]), forms.IntegerField)
