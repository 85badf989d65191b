"""The pages of users and groups, in the admin's theme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from llamactl.admin.base import BoundedListAdmin

PERMISSIONS_HELP = (
    "With “add instance” or “change instance” an account can run any program as the operating"
    " system's user of llamactl, and read every option; “change node” stops every instance;"
    " “add user”, “change user” and “change group” can make any account a superuser. “View"
    " instance” shows the last lines of logs, in which a backend may print prompts."
    " docs/threat-model.md has the whole table."
)

if TYPE_CHECKING:
    _UserAdmin = DjangoUserAdmin[User]
    _GroupAdmin = DjangoGroupAdmin
else:

    class _PermissionsAdmin(BoundedListAdmin):
        """A page on which permissions are given, with a help text on what they amount to."""

        def formfield_for_manytomany(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
            field = super().formfield_for_manytomany(db_field, request, **kwargs)
            if field is not None and db_field.name in ("permissions", "user_permissions"):
                field.help_text = f"{field.help_text} {PERMISSIONS_HELP}".strip()
            return field

    class _UserAdmin(_PermissionsAdmin, DjangoUserAdmin):
        pass

    class _GroupAdmin(_PermissionsAdmin, DjangoGroupAdmin):
        pass


admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(_UserAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    # unfold's ModelAdmin, which comes before Django's here, has an empty one.
    add_fieldsets = DjangoUserAdmin.add_fieldsets
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(_GroupAdmin):
    pass
