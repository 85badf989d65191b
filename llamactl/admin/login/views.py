"""The admin's pages that ask for a password, with the status of a refusal."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpRequest, HttpResponse
from django.urls import reverse_lazy

from llamactl.admin.login.forms import PasswordChangeForm
from llamactl.admin.login.known_browsers import remember_browser
from llamactl.admin.login.limits import account_id


def login(request: HttpRequest) -> HttpResponse:
    """Show the admin's login, and make the browser of a successful one known."""
    response = _with_refusal(admin.site.login(request))
    if request.method == "POST" and response.status_code == 302:
        remember_browser(request, response, account_id(request.user.get_username()))
    return response


class _PasswordChange(PasswordChangeView):
    """The admin's page, with a form that knows the request."""

    form_class = PasswordChangeForm
    template_name = "registration/password_change_form.html"
    success_url = reverse_lazy("admin:password_change_done")

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "request": self.request}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**admin.site.each_context(self.request), **kwargs)


def change_password(request: HttpRequest) -> HttpResponse:
    """Show the form for one's own password."""
    request.current_app = admin.site.name  # as the admin's own view
    return _with_refusal(_PasswordChange.as_view()(request))


def _with_refusal(response: Any) -> HttpResponse:
    """Give a page whose form was refused the status and ``Retry-After`` of the refusal."""
    context = getattr(response, "context_data", None) or {}
    refusal = getattr(context.get("form"), "refusal", None)
    if refusal is not None:
        response.status_code = refusal.status
        response["Retry-After"] = str(int(refusal.retry_after))
    shown: HttpResponse = response
    return shown
