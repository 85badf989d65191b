"""Base classes and formats of the admin's pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import get_fields_from_path
from django.core.exceptions import BadRequest
from django.db.models import BigIntegerField, Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llamactl.core.errors import LlamactlError

M = TypeVar("M", bound=Model)

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin as ThemedAdmin
    from django.forms import BaseForm, ModelForm
else:
    from unfold.admin import ModelAdmin

    BaseForm = object

    class ThemedAdmin(ModelAdmin):
        """unfold's ModelAdmin with the type parameter of django-stubs."""

        def __class_getitem__(cls, model):
            return cls


class RefusableForm(BaseForm):
    """A form that shows the domain function's error for the submission."""

    refusal: LlamactlError | None = None

    def add_refusal(self, error: LlamactlError) -> None:
        """Put the error beside its field, or else at the top of the form."""
        field = self.refused_field(error)
        self.add_error(field if field in self.fields else None, error.details)

    def refused_field(self, error: LlamactlError) -> str | None:
        """Return the name of the form field at fault, if ``error`` names one."""
        field = error.extra.get("field")
        return field if isinstance(field, str) else None


class _RefusedRequest(HttpRequest):
    """A POST that ``save_model`` refused with the error ``refusal``."""

    refusal: LlamactlError


MAX_SEARCH_WORDS = 20
"""Each word becomes a condition, and SQLite accepts 1,000 conditions."""


class BoundedListAdmin(ThemedAdmin[M]):
    """A list that takes the parameters of its own filters, and a search of bounded size.

    Django lets a user filter by every column and lookup. With ``options__regex=(.*a){12}@@`` the
    database computes for ever, and with ``…__startswith=`` a hidden value is guessed letter by
    letter.
    """

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        filters = self.list_filter if request is None else self.get_list_filter(request)
        own = {name for each in filters for name in self._parameters_of(each)}
        return lookup in own or not self._is_column(lookup.partition("__")[0], request)

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        # Django raises AttributeError for a reverse relation.
        columns = {field.name for field in self.opts.concrete_fields}
        return to_field in columns and super().to_field_allowed(request, to_field)

    def _is_column(self, name: str, request: HttpRequest | None) -> bool:
        """Return whether a filter of this name would reach the database.

        Django ignores any other name, with a redirect to the list without it.
        """
        columns = {"pk", *(field.name for field in self.opts.get_fields())}
        columns |= {field.attname for field in self.opts.concrete_fields}
        if request is not None:
            columns |= self.get_queryset(request).query.annotations.keys()
        return name in columns

    def _parameters_of(self, list_filter: Any) -> tuple[str, ...]:
        """Return the query parameters of a filter: a class, or a field's path with or without."""
        name = getattr(list_filter, "parameter_name", None)
        if name is not None:
            return (name,)
        path = list_filter if isinstance(list_filter, str) else list_filter[0]
        field = get_fields_from_path(self.model, path)[-1]
        target = f"{path}__id" if field.is_relation else path
        return f"{target}__exact", f"{path}__isnull"

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        for pk in request.POST.getlist(ACTION_CHECKBOX_NAME):
            if not _is_pk(pk):
                raise BadRequest(f"{pk[:80]!r} is no id of an object of this list")
        return super().changelist_view(request, extra_context)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except OverflowError:  # SQLite's; an id of a choice, which Django does not bound
            raise BadRequest("the form has a number above those of the database") from None

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[M], search_term: str
    ) -> tuple[QuerySet[M], bool]:
        words = " ".join(search_term[:1000].split()[:MAX_SEARCH_WORDS])
        return super().get_search_results(request, queryset, words)


class DomainAdmin(BoundedListAdmin[M]):
    """Pages of a model with its rules in a domain module, which raises LlamactlError.

    Saving calls the domain function inside Django's transaction. An error rolls the transaction
    back, and the submission is shown again with the error. So each rule has one place, and a
    refused submission leaves nothing behind.
    """

    def log_change(self, request: HttpRequest, obj: M, message: Any) -> Any:
        """Write into the admin's history, but not that nothing was changed (an empty list)."""
        return super().log_change(request, obj, message) if message else None

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        context = {"show_save_and_add_another": False, **(extra_context or {})}
        try:
            return super().changeform_view(request, object_id, form_url, context)
        except LlamactlError as error:
            cast(_RefusedRequest, request).refusal = error
        return super().changeform_view(request, object_id, form_url, context)

    def get_form(
        self, request: HttpRequest, obj: M | None = None, change: bool = False, **kwargs: Any
    ) -> type[ModelForm[M]]:
        form = super().get_form(request, obj, change=change, **kwargs)
        refusal = getattr(request, "refusal", None)
        return form if refusal is None else type(form.__name__, (form,), {"refusal": refusal})

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except LlamactlError as error:
            self.message_user(request, error.details, messages.ERROR)
            return HttpResponseRedirect(self.page_url("change", object_id))

    def page_url(self, page: str, *args: object) -> str:
        """Return the URL of one of this model's pages: ``changelist``, ``change``, ``add`` …"""
        name = f"{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(f"{self.admin_site.name}:{name}", args=args)

    def protected(self, view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        """Wrap ``view`` in the admin's login and CSRF checks, and never cache it."""
        return self.admin_site.admin_view(view)


def _is_pk(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text[:20]) <= BigIntegerField.MAX_BIGINT


def duration(span: timedelta) -> str:
    """Format a duration in its largest unit: ``4 s``, ``3 min``, ``5 h``, ``2 d``."""
    seconds = max(int(span.total_seconds()), 0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def elapsed_time(since: datetime, now: datetime) -> SafeString:
    """Format the time since ``since`` (``3 min``); times.js keeps it true on an open page."""
    return format_html(
        '<time datetime="{}" title="since {} UTC" data-relative="span">{}</time>',
        since.isoformat(),
        since.strftime("%Y-%m-%d %H:%M:%S"),
        duration(now - since),
    )


def relative_time(at: datetime | None, now: datetime, *, never: str = "never") -> SafeString:
    """Format a time relative to ``now`` (``3 min ago``), with the exact time as a tooltip.

    times.js keeps it true on an open page.
    """
    if at is None:
        return format_html('<span class="muted">{}</span>', never)
    if abs(now - at) < timedelta(seconds=2):
        text = "just now"
    else:
        text = f"{duration(now - at)} ago" if at < now else f"in {duration(at - now)}"
    return format_html(
        '<time datetime="{}" title="{} UTC" data-relative="ago">{}</time>',
        at.isoformat(),
        at.strftime("%Y-%m-%d %H:%M:%S"),
        text,
    )
