"""When does the admin check an instance's options, and how are warnings told?

Before Django begins to handle a submission: it does so in a transaction, which on SQLite keeps all
others from writing, and a check may wait for a slow program. So the submitted form is read once
beforehand, its options are checked, and what was found goes with the request to the form proper.
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

MOST_TOLD = 20


class _CheckedRequest(HttpRequest):
    """A submission whose options were checked."""

    findings: Sequence[PreflightFinding]


class PreflightAdmin(DomainAdmin[Instance]):
    """The part of the instances' admin that checks what is submitted."""

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
                # The errors stand in the form, which is not saved; the rest has no place there.
                self._tell(request, [finding for finding in findings if not finding.is_error])
        return super().changeform_view(request, object_id, form_url, extra_context)

    def _check(self, request: HttpRequest, object_id: str | None) -> list[PreflightFinding]:
        """What there is to say about the submitted options, if they are in order and new."""
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
        """What stands above the form if it has errors to be lived with."""
        return [(None, {"fields": [SAVE_ANYWAY]})] if has_errors(findings_of(request)) else []

    def tell_findings(self, request: HttpRequest) -> None:
        """Say what was found about options that are saved now."""
        self._tell(request, findings_of(request))

    def _tell(self, request: HttpRequest, findings: Sequence[PreflightFinding]) -> None:
        for finding in findings[:MOST_TOLD]:
            self.message_user(request, sanitize_text(finding.text), messages.WARNING)
        if (more := len(findings) - MOST_TOLD) > 0:
            self.message_user(request, f"… and {more} more such warnings.", messages.WARNING)


def check_document(
    document: Mapping[str, object], instance: Instance | None = None
) -> list[PreflightFinding]:
    """What a check of an options document finds; nothing for one that ``lifecycle`` refuses."""
    config = current()
    try:
        if instance is None:
            options = InstanceOptions.parse(document, config)
        else:
            options = lifecycle.replaced_options(instance, document, config)
    except LlamactlError:
        # It is told next to its field by whoever saves the document, or tries to.
        return []
    return check_on_node(options, config)


def findings_of(request: HttpRequest) -> Sequence[PreflightFinding]:
    return getattr(request, "findings", ())
