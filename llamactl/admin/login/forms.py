"""Forms that ask for a password, and show why a login is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest

from llamactl.admin.login.check import check_password_of
from llamactl.admin.login.errors import LoginsBusy, TooManyAttempts

if TYPE_CHECKING:
    from django.contrib.admin.forms import AdminAuthenticationForm as AuthenticationForm
    from django.contrib.admin.forms import AdminPasswordChangeForm as AdminOwnPasswordChangeForm
else:
    from unfold.forms import AdminOwnPasswordChangeForm, AuthenticationForm


class LoginForm(AuthenticationForm):
    """The admin's login form; named in the settings."""

    refusal: TooManyAttempts | LoginsBusy | None = None
    """The limit that kept the password from being compared."""

    def clean(self) -> dict[str, Any]:
        try:
            return super().clean()
        except (TooManyAttempts, LoginsBusy) as error:
            self.refusal = error
            raise ValidationError(error.details, code=error.code) from None


class PasswordChangeForm(AdminOwnPasswordChangeForm):
    """The form for one's own password. The old password is compared under the login's limits."""

    refusal: TooManyAttempts | LoginsBusy | None = None

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request = request

    def clean_old_password(self) -> str:
        name = self.user.get_username()
        try:
            is_right = check_password_of(
                self._request,
                name,
                lambda: self.user.check_password(self.cleaned_data["old_password"]),
            )
        except (TooManyAttempts, LoginsBusy) as error:
            self.refusal = error
            raise ValidationError(error.details, code=error.code) from None
        if not is_right:
            raise ValidationError(
                self.error_messages["password_incorrect"], code="password_incorrect"
            )
        old: str = self.cleaned_data["old_password"]
        return old
