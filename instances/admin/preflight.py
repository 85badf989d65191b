"""Preflight check of submitted options in the admin, before Django's transaction.

Django handles a submission in a transaction, which on SQLite blocks every other writer, and a check
may wait for a slow program. So the submitted form is read once before the transaction, and the
findings travel with the request to the form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.http import HttpRequest

from instances import lifecycle
from instances.admin.form import InstanceForm
from instances.admin.form_preflight import SAVE_ANYWAY, has_errors
from instances.models import Instance
from instances.node_checks import check_on_node
from instances.options import InstanceOptions
from instances.preflight.findings import PreflightFinding
from llamactl.admin.base import DomainAdmin
from llamactl.config import current
from llamactl.core.errors import LlamactlError
from llamactl.core.sanitize import sanitize_text

MAX_MESSAGES = 20


class _CheckedRequest(HttpRequest):
    """A submission with the findings of its check."""

    findings: Sequence[PreflightFinding]


class PreflightAdmin(DomainAdmin[Instance]):
    """The part of the instances' admin that checks submitted options."""

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        if request.method == "POST":
            findings = self._check(request, object_id)
            cast(_CheckedRequest, request).findings = findings
            if has_errors(findings) and SAVE_ANYWAY not in request.POST:
                # The form, which is not saved, shows the errors; warnings become messages.
                self._show_messages(
                    request, [finding for finding in findings if not finding.is_error]
                )
        return super().changeform_view(request, object_id, form_url, extra_context)

    def _check(self, request: HttpRequest, object_id: str | None) -> list[PreflightFinding]:
        """Return the findings about the submitted options, if the form is valid and changed."""
        instance = None if object_id is None else self.get_object(request, unquote(object_id))
        if object_id is None:
            may_save = self.has_add_permission(request)
        else:
            may_save = instance is not None and self.has_change_permission(request, instance)
        if not may_save:
            return []
        form_class = self.get_form(request, instance, change=instance is not None)
        form = cast(InstanceForm, form_class(request.POST, request.FILES, instance=instance))
        if not form.is_valid() or (instance is not None and not form.changes_options()):
            return []
        return check_document(form.to_document(), instance)

    def get_form(
        self,
        request: HttpRequest,
        obj: Instance | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        findings = findings_of(request)
        return type(form.__name__, (form,), {"findings": findings}) if findings else form

    def extra_fieldsets(self, request: HttpRequest) -> list[tuple[None, dict[str, Any]]]:
        """Return the section "Save anyway" if the check found errors."""
        return [(None, {"fields": [SAVE_ANYWAY]})] if has_errors(findings_of(request)) else []

    def show_findings(self, request: HttpRequest) -> None:
        """Show the findings about saved options as messages."""
        self._show_messages(request, findings_of(request))

    def _show_messages(self, request: HttpRequest, findings: Sequence[PreflightFinding]) -> None:
        for finding in findings[:MAX_MESSAGES]:
            self.message_user(request, sanitize_text(finding.text), messages.WARNING)
        if (more := len(findings) - MAX_MESSAGES) > 0:
            self.message_user(request, f"… and {more} more such warnings.", messages.WARNING)


def check_document(
    document: Mapping[str, object], instance: Instance | None = None
) -> list[PreflightFinding]:
    """Return the findings about an options document; none if ``lifecycle`` refuses the document."""
    config = current()
    try:
        if instance is None:
            options = InstanceOptions.parse(document, config)
        else:
            options = lifecycle.replaced_options(instance, document, config)
    except LlamactlError:
        # Saving the document raises the same error, and shows it next to its field.
        return []
    return check_on_node(options, config, saved=instance)


def findings_of(request: HttpRequest) -> Sequence[PreflightFinding]:
    return getattr(request, "findings", ())
