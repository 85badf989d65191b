"""The admin's form of an instance: options document to fields, fields to options document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from instances.admin.form_fields import JsonObjectField, form_field, to_initial
from instances.admin.form_preflight import SAVE_ANYWAY, PreflightForm
from instances.admin.form_values import (
    OPTION_FIELDS,
    SHORT_OPTIONS,
    fingerprint,
    to_fields,
    to_value,
)
from instances.backends.registry import BACKENDS, backend_choices
from instances.errors import (
    InstanceExists,
    InvalidInstanceName,
    PortOutOfRange,
    PortUnavailable,
    TooManyInstances,
)
from instances.models import Instance
from instances.names import MAX_NAME_LENGTH
from instances.options import InstanceOptions
from llamactl.config import current
from llamactl.core.errors import LlamactlError

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[Instance]
else:
    _ModelForm = forms.ModelForm


def _short_rows() -> tuple[str | tuple[str, ...], ...]:
    rows: list[str | tuple[str, ...]] = []
    placed: set[str] = set()
    for backend in BACKENDS.values():
        for row in backend.option_fields:
            names = tuple(field.option for field in row if field.option not in placed)
            placed.update(names)
            if names:
                rows.append(names if len(names) > 1 else names[0])
    return tuple(rows)


SHORT_ROWS = _short_rows()
"""Rows of the backend options with a field of their own; the page hides other backends' fields."""

_LEADING_FIELD = re.compile(r"\W*(?:(?:options|backend_options)\.)?([a-z_]+)")

_OWN_FIELDS = {"backend_type", "backend_options", "nodes"}
"""Options with fields that the form declares itself."""

STARTING_ROWS: tuple[str | tuple[str, ...], ...] = (
    ("on_demand_start", "idle_timeout"),
    "pinned",
    "keepalive_blanks",
    ("auto_restart", "max_restarts", "restart_delay"),
    "group",
)
REQUEST_ROWS: tuple[str | tuple[str, ...], ...] = (
    ("aliases", "list_aliases"),
    "request",
)
_PROCESS_ROWS = (
    "port",
    "environment",
    "command_override",
    "docker_enabled",
    "working_directory",
    "limits",
)


def process_rows(model: type[InstanceOptions]) -> tuple[str, ...]:
    """Return the rows of the section "Process"; it takes each option that has no other place."""
    rows = (*STARTING_ROWS, *REQUEST_ROWS)
    placed = {name for row in rows for name in ([row] if isinstance(row, str) else row)}
    placed |= {*_PROCESS_ROWS, *_OWN_FIELDS}
    return (*_PROCESS_ROWS, *(name for name in model.model_fields if name not in placed))


class InstanceForm(PreflightForm, _ModelForm):
    """Form that builds an options document; ``lifecycle`` validates the document.

    An edit starts from the stored document and takes over changed fields only. So a field that
    cannot show a stored value cannot lose the value either.
    """

    options_model: ClassVar[type[InstanceOptions]] = InstanceOptions

    name = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget({"maxlength": MAX_NAME_LENGTH, "autofocus": True}),
        help_text="The “model” of requests. Letters, digits, hyphens, underscores and periods.",
    )
    start_now = forms.BooleanField(
        required=False, initial=True, label="Start now", widget=UnfoldBooleanSwitchWidget()
    )
    backend_type = forms.ChoiceField(label="Backend", widget=UnfoldAdminSelectWidget())
    node = forms.ChoiceField(required=False, widget=UnfoldAdminSelectWidget())
    port = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget({"inputmode": "numeric"}),
        help_text="Port that the backend listens on. Empty: a free port of the configured range.",
    )
    further_options = JsonObjectField(
        rows=6,
        label="Further backend options",
        help_text='A JSON object, such as {"mlock": true, "extra_args": {"new-flag": "value"}}.'
        " Names are those of the program's flags, with underscores.",
    )
    seen = forms.CharField(required=False, widget=forms.HiddenInput())

    class Meta:
        model = Instance
        fields: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stored: dict[str, Any] | None = self.instance.options if self.instance.pk else None
        for name in ("seen",) if self.stored is None else ("name", "start_now", "node"):
            self.fields.pop(name)
        self._options = {
            name: option
            for name, option in self.options_model.model_fields.items()
            if name not in _OWN_FIELDS
        }
        for name, option in self._options.items():
            self.fields[name] = form_field(option)
        for name, field in OPTION_FIELDS.items():
            self.fields[name] = forms.CharField(
                required=False,
                label=field.label,
                help_text=field.help_text,
                widget=UnfoldAdminTextInputWidget(
                    {
                        "spellcheck": "false",
                        # instance_form.js hides the fields of other backends by this attribute.
                        "data-backends": " ".join(
                            kind for kind, names in SHORT_OPTIONS.items() if name in names
                        ),
                    }
                ),
            )
        self._offer_choices()
        self.initial = {**self._shown(), **self.initial}

    # -- document → fields ------------------------------------------------------------------------

    def _offer_choices(self) -> None:
        config = current()
        if isinstance(kinds := self.fields.get("backend_type"), forms.ChoiceField):
            kinds.choices = backend_choices()
        if isinstance(node := self.fields.get("node"), forms.ChoiceField):
            node.choices = [(name, name) for name in sorted({config.local_node, *config.nodes})]

    def _shown(self) -> dict[str, object]:
        """Return the initial values: the stored document as fields, or the config's defaults."""
        if self.stored is None:
            config = current()
            values: dict[str, Any] = self.options_model.parse({}, config).to_document()
            special: dict[str, object] = {
                "backend_type": values["backend_type"],
                "node": config.local_node,
            }
        else:
            values = self.stored
            special = {
                "backend_type": values["backend_type"],
                "seen": fingerprint(values),
                **to_fields(values["backend_type"], values["backend_options"]),
            }
        shown = {
            name: to_initial(self.fields[name], values.get(name, option.default))
            for name, option in self._options.items()
        }
        return {**shown, **special}

    # -- fields → document ------------------------------------------------------------------------

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        further = cleaned.get("further_options")
        for name in (*SHORT_OPTIONS.get(cleaned.get("backend_type", ""), ()), "port"):
            if further and name in further and cleaned.get(name):
                self.add_error(
                    "further_options", f"{name} has a field above; set it in one place only"
                )
        if self.stored is not None and cleaned.get("seen") != fingerprint(self.stored):
            self.add_error(
                None,
                "Another user changed this instance during your edit; reload the page to see the"
                " current options",
            )
        if self.refusal is not None:
            self.add_refusal(self.refusal)
        self.add_findings()
        return cleaned

    def _post_clean(self) -> None:
        """Skip the model's checks: ``lifecycle`` has the rules, with better texts."""

    def changes_options(self) -> bool:
        """Return whether an edit changes an option, so that a running instance must restart."""
        return bool(set(self.changed_data) - {"seen", SAVE_ANYWAY})

    def to_document(self) -> dict[str, object]:
        """Return the options document of a valid form."""
        cleaned = self.cleaned_data
        changed = set(self.changed_data) if self.stored is not None else set(self.fields)
        document: dict[str, object] = dict(self.stored or {})
        for name in changed & {"backend_type", *self._options}:
            document[name] = cleaned[name]
        if "node" in changed and cleaned.get("node"):
            document["nodes"] = [cleaned["node"]]
        if changed & {"backend_type", "further_options", "port", *OPTION_FIELDS}:
            document["backend_options"] = self._backend_options()
        return document

    def _backend_options(self) -> dict[str, object]:
        cleaned = self.cleaned_data
        options: dict[str, object] = dict(cleaned["further_options"])
        for name in (*SHORT_OPTIONS.get(cleaned["backend_type"], ()), "port"):
            if text := cleaned.get(name):
                options[name] = to_value(name, text)
        return options

    # -- refusals ---------------------------------------------------------------------------------

    def refused_field(self, error: LlamactlError) -> str | None:
        if isinstance(error, InvalidInstanceName | InstanceExists):
            return "name"
        if isinstance(error, PortOutOfRange | PortUnavailable):
            return "port"
        if isinstance(error, TooManyInstances):
            return None
        named = super().refused_field(error)
        if named is None:
            # Only the place of the message depends on its wording, never the outcome.
            match = _LEADING_FIELD.match(error.details)
            named = match[1] if match else None
        if named == "backend_options" or (
            named and named not in self.fields and self._has_further(named)
        ):
            return "further_options"
        return named

    def _has_further(self, option: str) -> bool:
        further = self.cleaned_data.get("further_options")
        return isinstance(further, Mapping) and option in further
