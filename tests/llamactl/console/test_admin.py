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
