"""Findings of the preflight check in the admin's form.

An error stands next to its field and prevents saving. The operator can override errors with "Save
anyway", for example during a download or before a disk is mounted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django import forms
from unfold.widgets import UnfoldBooleanSwitchWidget

from instances.preflight.findings import PreflightFinding
from llamactl.admin.base import RefusableForm
from llamactl.core.sanitize import sanitize_text

SAVE_ANYWAY = "save_anyway"


class PreflightForm(RefusableForm):
    """Form with the findings of a check of the same submission."""

    findings: ClassVar[Sequence[PreflightFinding]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if has_errors(self.findings):
            self.fields[SAVE_ANYWAY] = forms.BooleanField(
                required=False,
                label="Save anyway",
                widget=UnfoldBooleanSwitchWidget(),
                help_text="Saves despite the errors below. The instance cannot start until they are"
                " fixed.",
            )

    def add_findings(self) -> None:
        """Put each error next to its field, unless the operator chose to save anyway."""
        if self.cleaned_data.get(SAVE_ANYWAY):
            return
        for finding in self.findings:
            if finding.is_error:
                field, text = self.placed(finding)
                self.add_error(field, text)

    def placed(self, finding: PreflightFinding) -> tuple[str | None, str]:
        """Return the form field of a finding, and the text to show there."""
        _, _, option = finding.field.rpartition("backend_options.")
        own = option in self.fields
        field = option if own else "further_options" if "." in finding.field else None
        return field, sanitize_text(finding.sentence if own else finding.text)


def has_errors(findings: Sequence[PreflightFinding]) -> bool:
    return any(finding.is_error for finding in findings)
