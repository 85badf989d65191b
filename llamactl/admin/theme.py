"""How the admin looks, and what is in its sidebar: the theme's settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy


def allowed(*permissions: str) -> Callable[[HttpRequest], bool]:
    """A sidebar entry for those who have one of ``permissions``."""
    return lambda request: any(request.user.has_perm(name) for name in permissions)


def viewers_of(model: str) -> Callable[[HttpRequest], bool]:
    """A sidebar entry for those who may see ``app.model``'s list."""
    app, name = model.split(".")
    return allowed(f"{app}.view_{name}", f"{app}.change_{name}")


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "llamactl",
    "SITE_HEADER": "llamactl",
    "SITE_SYMBOL": "memory",
    "SITE_URL": None,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "llamactl.console.dashboard.add_dashboard",
    "STYLES": [lambda request: static("css/admin.css")],
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254.604)",
            "100": "oklch(93.2% .032 255.585)",
            "200": "oklch(88.2% .059 254.128)",
            "300": "oklch(80.9% .105 251.813)",
            "400": "oklch(70.7% .165 254.624)",
            "500": "oklch(62.3% .214 259.815)",
            "600": "oklch(54.6% .245 262.881)",
            "700": "oklch(48.8% .243 264.376)",
            "800": "oklch(42.4% .199 265.638)",
            "900": "oklch(37.9% .146 265.522)",
            "950": "oklch(28.2% .091 267.935)",
        },
    },
    "SIDEBAR": {
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
                        "permission": viewers_of("instances.instance"),
                    },
                    {
                        "title": "Keys",
                        "icon": "key",
                        "link": reverse_lazy("admin:keys_inferencekey_changelist"),
                        "permission": viewers_of("keys.inferencekey"),
                    },
                    {
                        "title": "Nodes",
                        "icon": "dns",
                        "link": reverse_lazy("admin:nodes_node_changelist"),
                        "permission": viewers_of("nodes.node"),
                    },
                ],
            },
            {
                "title": "Who may do what",
                "separator": True,
                "items": [
                    {
                        "title": "Users",
                        "icon": "person",
                        "link": reverse_lazy("admin:auth_user_changelist"),
                        "permission": viewers_of("auth.user"),
                    },
                    {
                        "title": "Groups",
                        "icon": "group",
                        "link": reverse_lazy("admin:auth_group_changelist"),
                        "permission": viewers_of("auth.group"),
                    },
                ],
            },
        ],
    },
}
