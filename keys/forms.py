"""Admin form of an inference key; the rules are in ``issuing``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from instances.models import Instance
from keys import issuing
from keys.errors import (
    InvalidExpiry,
    InvalidInstanceId,
    InvalidKeyName,
    InvalidPermissionMode,
    MissingPermissions,
)
from keys.models import MAX_NAME_LENGTH, InferenceKey
from keys.rights import DEFAULT_RIGHTS, Rights, rights_of
from llamactl.admin.base import RefusableForm
from llamactl.core.errors import LlamactlError

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[InferenceKey]
else:
    _ModelForm = forms.ModelForm

_FIELDS: dict[type[LlamactlError], str] = {
    InvalidKeyName: "name",
    InvalidPermissionMode: "permission_mode",
    MissingPermissions: "instances",
    InvalidInstanceId: "instances",
    InvalidExpiry: "expires_at",
}


_RIGHTS = ("can_start", "can_evict", "can_stop")


def _instances_field(label: str, help_text: str) -> forms.ModelMultipleChoiceField[Instance]:
    return forms.ModelMultipleChoiceField(
        label=label,
        queryset=Instance.objects.only("name"),
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text=help_text,
    )


class KeyForm(RefusableForm, _ModelForm):
    """Name, instances with their rights, and expiry of a key."""

    name = forms.CharField(
        required=False,
        strip=False,
        widget=UnfoldAdminTextInputWidget({"maxlength": MAX_NAME_LENGTH}),
        help_text="The application or person that uses the key, to find the key to revoke.",
    )
    permission_mode = forms.ChoiceField(
        label="Opens",
        choices=InferenceKey.PermissionMode.choices,
        initial=InferenceKey.PermissionMode.ALLOW_ALL,
        widget=UnfoldAdminRadioSelectWidget(choices=InferenceKey.PermissionMode.choices),
    )
    instances = _instances_field(
        "Instances", "The instances that the key opens, if it does not open all."
    )
    can_start = _instances_field(
        "May start", "Of the chosen instances, those that a request with the key starts."
    )
    can_evict = _instances_field(
        "May evict for",
        "Of these, those for whose start another instance may be stopped, at a limit.",
    )
    can_stop = _instances_field(
        "May stop", "Of the chosen instances, those that the key may stop (/models/unload)."
    )
    expires_at = forms.SplitDateTimeField(
        required=False,
        label="Expires",
        widget=UnfoldAdminSplitDateTimeWidget(),
        help_text="In UTC; empty for a key that never expires.",
    )

    is_blocked = forms.BooleanField(
        required=False,
        label="Blocked",
        widget=UnfoldBooleanWidget(),
        help_text="A blocked key opens nothing until it is unblocked.",
    )

    class Meta:
        model = InferenceKey
        fields = ("name", "permission_mode", "instances", "expires_at", "is_blocked")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.update(self._initial_rights())

    def _initial_rights(self) -> dict[str, list[int]]:
        """The present rights; for a new key those of ``DEFAULT_RIGHTS``, on whatever is chosen."""
        if self.instance.pk is not None:
            found = rights_of(self.instance)
        else:
            ids = Instance.objects.values_list("pk", flat=True)
            found = dict.fromkeys(ids, DEFAULT_RIGHTS)
        return {
            name: [pk for pk, rights in found.items() if getattr(rights, name)] for name in _RIGHTS
        }

    def rights(self) -> dict[int, Rights]:
        """The rights on each chosen instance, of a valid form."""
        ticked = {name: {each.pk for each in self.cleaned_data[name]} for name in _RIGHTS}
        return {
            each.pk: Rights(**{name: each.pk in ticked[name] for name in _RIGHTS})
            for each in self.cleaned_data["instances"]
        }

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("permission_mode") == InferenceKey.PermissionMode.ALLOW_ALL:
            cleaned["instances"] = Instance.objects.none()
        if self.refusal is not None:
            self.add_refusal(self.refusal)
        elif not self.errors:
            try:
                self._validate(cleaned)
            except LlamactlError as error:
                self.add_refusal(error)
        return cleaned

    def _validate(self, cleaned: dict[str, Any]) -> None:
        # An expired key may still be renamed; only a new date must lie in the future.
        expires_at = cleaned["expires_at"] if "expires_at" in self.changed_data else None
        issuing.validate(
            name=cleaned["name"],
            permission_mode=cleaned["permission_mode"],
            instance_ids={instance.pk for instance in cleaned["instances"]},
            expires_at=expires_at,
            may_be_empty=self.instance.pk is not None
            and not {"permission_mode", "instances"} & set(self.changed_data),
        )

    def refused_field(self, error: LlamactlError) -> str | None:
        return _FIELDS.get(type(error)) or super().refused_field(error)
