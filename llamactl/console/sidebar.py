"""Sidebar of the admin: its entries, and the permissions that show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.urls import reverse_lazy


def can_view(model: str) -> Callable[[HttpRequest], bool]:
    """Return the check that a user may view the list of ``app.model``."""
    app, name = model.split(".")
    permissions = (f"{app}.view_{name}", f"{app}.change_{name}")
    return lambda request: any(map(request.user.has_perm, permissions))


SIDEBAR: dict[str, Any] = {
    "show_search": False,
    "show_all_applications": False,
    "navigation": [
        {
            "items": [
                {"title": "Overview", "icon": "dashboard", "link": reverse_lazy("admin:index")},
                {
                    "title": "Instances",
                    "icon": "memory",
                    "link": reverse_lazy("admin:instances_instance_changelist"),
                    "permission": can_view("instances.instance"),
                },
                {
                    "title": "Keys",
                    "icon": "key",
                    "link": reverse_lazy("admin:keys_inferencekey_changelist"),
                    "permission": can_view("keys.inferencekey"),
                },
                {
                    "title": "Nodes",
                    "icon": "dns",
                    "link": reverse_lazy("admin:nodes_node_changelist"),
                    "permission": can_view("nodes.node"),
                },
            ],
        },
        {
            "title": "Access",
            "separator": True,
            "items": [
                {
                    "title": "Users",
                    "icon": "person",
                    "link": reverse_lazy("admin:auth_user_changelist"),
                    "permission": can_view("auth.user"),
                },
                {
                    "title": "Groups",
                    "icon": "group",
                    "link": reverse_lazy("admin:auth_group_changelist"),
                    "permission": can_view("auth.group"),
                },
            ],
        },
    ],
}
