"""Start, stop and restart in the admin: buttons of one instance, actions on several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.loader import render_to_string
from django.utils import timezone

from instances import lifecycle
from instances.models import Instance
from llamactl.admin.base import DomainAdmin
from llamactl.core.errors import LlamactlError

NAMES_IN_A_MESSAGE = 10


@dataclass(frozen=True)
class Control:
    """A button of an instance: the function it calls and the messages on the outcome."""

    name: str
    label: str
    icon: str
    request: Callable[..., Instance]
    changed: str
    """Message on instances whose desired state changed."""
    unchanged: str
    """Message on the other instances: the reason for no change."""


CONTROLS = {
    control.name: control
    for control in (
        Control(
            "start",
            "Start",
            "play_arrow",
            lifecycle.request_start,
            "Start requested for",
            "Running or starting already",
        ),
        Control(
            "stop", "Stop", "stop", lifecycle.request_stop, "Stop requested for", "Stopped already"
        ),
        Control(
            "restart",
            "Restart",
            "restart_alt",
            lifecycle.request_restart,
            "Restart requested for",
            "Nothing to do for",
        ),
    )
}


class ControlsAdmin(DomainAdmin[Instance]):
    """The part of the instances' admin that starts and stops instances."""

    @admin.action(description="Start the selected instances", permissions=["change"])
    def start_selected(self, request: HttpRequest, queryset: QuerySet[Instance]) -> None:
        self._apply(request, CONTROLS["start"], queryset)

    @admin.action(description="Stop the selected instances", permissions=["change"])
    def stop_selected(self, request: HttpRequest, queryset: QuerySet[Instance]) -> None:
        self._apply(request, CONTROLS["stop"], queryset)

    @admin.action(description="Restart the selected instances", permissions=["change"])
    def restart_selected(self, request: HttpRequest, queryset: QuerySet[Instance]) -> None:
        self._apply(request, CONTROLS["restart"], queryset)

    def control(self, request: HttpRequest, name: str, object_id: str) -> Instance:
        """Carry out one instance's button. Raises Http404 or PermissionDenied."""
        instance = self.get_object(request, unquote(object_id))
        control = CONTROLS.get(name)
        if instance is None or control is None:
            raise Http404
        if not self.has_change_permission(request, instance):
            raise PermissionDenied
        self._apply(request, control, [instance])
        return instance

    def _apply(self, request: HttpRequest, control: Control, instances: Iterable[Instance]) -> None:
        """Call the control's function for each instance, then report changes and refusals."""
        changed: list[Instance] = []
        unchanged: list[Instance] = []
        refused: list[str] = []
        for instance in instances:
            before = (instance.desired_state, instance.generation)
            try:
                after = control.request(instance.name, cause=cause_of(request))
            except LlamactlError as error:
                refused.append(f"{instance.name}: {error.details}")
                continue
            if (after.desired_state, after.generation) == before:
                unchanged.append(instance)
            else:
                changed.append(instance)
                self.log_change(request, instance, f"{control.label} requested.")
        if changed:
            self.message_user(request, counted(control.changed, changed), messages.SUCCESS)
        if unchanged:
            self.message_user(request, counted(control.unchanged, unchanged), messages.INFO)
        for text in refused:
            self.message_user(request, text, messages.ERROR)
        self._warn_of_late_workers(request, changed)

    def _warn_of_late_workers(self, request: HttpRequest, instances: Iterable[Instance]) -> None:
        now = timezone.now()
        late = {instance.node.name for instance in instances if not instance.node.is_alive(now)}
        for node in sorted(late):
            self.message_user(
                request,
                f"The worker of node {node} has sent no heartbeat lately; the request takes effect"
                " when the worker is back.",
                messages.WARNING,
            )

    def control_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """POST ``control=start|stop|restart`` from the detail page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        instance = self.control(request, request.POST.get("control", ""), object_id)
        return HttpResponseRedirect(self.page_url("change", instance.pk))


def cause_of(request: HttpRequest) -> str:
    """Return the origin for the history: ``admin:<user>``."""
    return f"admin:{request.user.get_username()}"


def control_buttons(instance: Instance, *, in_row: bool = False) -> str:
    """Return the buttons as HTML; the stylesheet hides buttons that do not fit the status."""
    return render_to_string(
        "instances/controls.html",
        {"instance": instance, "controls": CONTROLS.values(), "in_row": in_row},
    )


def counted(message: str, instances: list[Instance]) -> str:
    """Return ``Start requested for 2: a, b``, with the names of the first ten."""
    names = ", ".join(instance.name for instance in instances[:NAMES_IN_A_MESSAGE])
    more = len(instances) - NAMES_IN_A_MESSAGE
    return f"{message} {len(instances)}: {names}{f' and {more} more' if more > 0 else ''}."
