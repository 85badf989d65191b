"""Admin form of an inference key; the rules are in ``issuing``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextInputWidget,
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


class KeyForm(RefusableForm, _ModelForm):
    """Name, instances and expiry of a key."""

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
    instances = forms.ModelMultipleChoiceField(
        queryset=Instance.objects.only("name"),
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="The instances that the key opens, if it does not open all.",
    )
    expires_at = forms.SplitDateTimeField(
        required=False,
        label="Expires",
        widget=UnfoldAdminSplitDateTimeWidget(),
        help_text="In UTC; empty for a key that never expires.",
    )

    class Meta:
        model = InferenceKey
        fields = ("name", "permission_mode", "instances", "expires_at")

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
        )

    def refused_field(self, error: LlamactlError) -> str | None:
        return _FIELDS.get(type(error)) or super().refused_field(error)
