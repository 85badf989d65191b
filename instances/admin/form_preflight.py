"""How does the admin's form say what a check of the options found?

An error stands next to its field and keeps the form from being saved, unless the operator, who may
know better (a download that is not finished, a disk that is not mounted yet), says so.
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
    """A form with what a check found about the same submission a moment ago."""

    findings: ClassVar[Sequence[PreflightFinding]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if has_errors(self.findings):
            self.fields[SAVE_ANYWAY] = forms.BooleanField(
                required=False,
                label="Save anyway",
                widget=UnfoldBooleanSwitchWidget(),
                help_text="What is marked below does not fit what is installed or on disk now.",
            )

    def add_findings(self) -> None:
        """Put each error next to its field, unless they are to be lived with."""
        if self.cleaned_data.get(SAVE_ANYWAY):
            return
        for finding in self.findings:
            if finding.is_error:
                field, text = self.placed(finding)
                self.add_error(field, text)

    def placed(self, finding: PreflightFinding) -> tuple[str | None, str]:
        """The form field that a finding is about, and what to say there."""
        _, _, option = finding.field.rpartition("backend_options.")
        own = option in self.fields
        field = option if own else "further_options" if "." in finding.field else None
        return field, sanitize_text(finding.sentence if own else finding.text)


def has_errors(findings: Sequence[PreflightFinding]) -> bool:
    return any(finding.is_error for finding in findings)
