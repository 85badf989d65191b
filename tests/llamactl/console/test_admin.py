"""Pages of users and groups."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

pytestmark = pytest.mark.django_db


def test_permissions_are_explained_where_they_are_given(admin_client: Client) -> None:
    user = User.objects.get()
    for path in (f"user/{user.pk}/change/", "group/add/"):
        page = admin_client.get(f"/admin/auth/{path}").content.decode()
        assert "can run any program as the operating" in page, path
        assert "docs/threat-model.md" in page, path


def test_an_added_account_can_log_in(admin_client: Client) -> None:
    password = "Correct-horse-9"
    form = {"username": "vera", "password1": password, "password2": password}
    page = admin_client.get("/admin/auth/user/add/").content.decode()
    for name in form:
        assert f'name="{name}"' in page
    response = admin_client.post("/admin/auth/user/add/", {**form, "usable_password": "true"})
    added = User.objects.get(username="vera")
    assert response["Location"] == f"/admin/auth/user/{added.pk}/change/"
    assert added.check_password(password)
    assert not added.is_staff


@pytest.mark.parametrize("username", ["", "a\0b", "two words", "a" * 151])
def test_an_account_without_a_proper_name_is_not_added(admin_client: Client, username: str) -> None:
    form = {"username": username, "password1": "Correct-horse-9", "password2": "Correct-horse-9"}
    assert admin_client.post("/admin/auth/user/add/", form).status_code == 200
    assert User.objects.count() == 1
