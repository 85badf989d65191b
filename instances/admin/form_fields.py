"""Form fields of the instance options, made from the fields of ``InstanceOptions``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from django import forms
from pydantic.fields import FieldInfo
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from instances.admin.form_values import parse_lines, parse_object, to_lines
from instances.option_document import OptionDocument
from instances.option_types import SeveralLines
from llamactl.core.sanitize import sanitize_json, sanitize_text

_PLAIN = {"spellcheck": "false"}


class ShownField(forms.CharField):
    """A text that counts as changed only if it differs from what a browser sends back.

    Browsers send CRLF for a line break, and blanks at the ends are not part of a value.
    """

    def has_changed(self, initial: Any, data: Any) -> bool:
        return _as_sent(initial) != _as_sent(data)


class TextField(ShownField):
    """One line of text."""

    def to_initial(self, value: Any) -> str:
        """Return the text that shows ``value``; unprintable characters are escaped."""
        return sanitize_text(value or "")


class LinesField(ShownField):
    """Several lines of text."""

    def __init__(self, *, rows: int, **kwargs: Any) -> None:
        widget = UnfoldAdminTextareaWidget({"rows": rows, **_PLAIN})
        super().__init__(required=False, strip=False, widget=widget, **kwargs)

    def to_python(self, value: Any) -> Any:
        return (super().to_python(value) or "").replace("\r\n", "\n")


def _as_sent(text: Any) -> str:
    return str(text or "").replace("\r\n", "\n").strip()


class JsonObjectField(LinesField):
    """A JSON object."""

    def to_initial(self, value: OptionDocument | Mapping[str, object]) -> str:
        document = value.to_document() if isinstance(value, OptionDocument) else value
        return sanitize_json(document) if document else ""

    def clean(self, value: Any) -> Any:
        return parse_object(super().clean(value))


class VariablesField(LinesField):
    """Environment variables, one ``NAME=value`` a line."""

    def to_initial(self, value: Mapping[str, str]) -> str:
        return to_lines(value or {})

    def clean(self, value: Any) -> Any:
        return parse_lines(super().clean(value))


class NamesField(LinesField):
    """A list of names, one a line."""

    def to_initial(self, value: Sequence[str]) -> str:
        return "\n".join(map(sanitize_text, value or ()))

    def clean(self, value: Any) -> Any:
        return [name for line in super().clean(value).split("\n") if (name := line.strip())]


class ConfiguredField(forms.ChoiceField):
    """Yes, no, or as configured (None)."""

    _VALUES: tuple[tuple[str, str, bool | None], ...] = (
        ("", "as configured", None),
        ("true", "yes", True),
        ("false", "no", False),
    )

    def __init__(self, **kwargs: Any) -> None:
        choices = [(text, label) for text, label, _ in self._VALUES]
        widget = UnfoldAdminSelectWidget(choices=choices)
        super().__init__(required=False, choices=choices, widget=widget, **kwargs)

    def to_initial(self, value: bool | None) -> str:  # an option's value
        return next(text for text, _, option in self._VALUES if option is value)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        return next(option for known, _, option in self._VALUES if known == text)


def form_field(option: FieldInfo) -> forms.Field:
    """Return the form field for ``option``, by its type. Raises TypeError for an unknown type."""
    kind = option.annotation
    texts: dict[str, Any] = {
        "label": option.title,
        # The API's documentation is Markdown, a help text is not.
        "help_text": (option.description or "").replace("`", ""),
    }
    if isinstance(kind, UnionType) and set(get_args(kind)) == {bool, NoneType}:
        return ConfiguredField(**texts)
    if kind is bool:
        return forms.BooleanField(required=False, widget=UnfoldBooleanSwitchWidget(), **texts)
    if kind is int:
        return forms.IntegerField(min_value=0, widget=UnfoldAdminIntegerFieldWidget(), **texts)
    if kind is str and SeveralLines() in option.metadata:
        return LinesField(rows=6, **texts)
    if kind is str:
        return TextField(required=False, widget=UnfoldAdminTextInputWidget(_PLAIN), **texts)
    if get_origin(kind) is list:
        texts["help_text"] += " One a line."
        return NamesField(rows=3, **texts)
    if get_origin(kind) is dict:
        texts["help_text"] += (
            " One NAME=value a line. A value with line breaks goes in double quotes, as in JSON:"
            ' CERT="first\\nsecond".'
        )
        return VariablesField(rows=3, **texts)
    if isinstance(kind, type) and issubclass(kind, OptionDocument):
        texts["help_text"] += f" A JSON object of {', '.join(kind.model_fields)}."
        return JsonObjectField(rows=2, **texts)
    raise TypeError(f"the admin's form has no field for an option of type {kind}")


def to_initial(field: forms.Field, value: object) -> object:
    """Return what ``field`` shows for the option's ``value``."""
    convert = getattr(field, "to_initial", None)
    return value if convert is None else convert(value)
