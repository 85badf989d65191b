"""The banner of each admin page as it is first rendered, and its state for pages without a stream.

A reverse proxy that passes no Upgrade headers (nginx as shipped) lets no WebSocket through.
"""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from llamactl.console.live.problems import (
    html_for,
    html_of,
    process_problems,
    read_node_problems,
)
from llamactl.console.live.viewer import viewer_of_request
from llamactl.core.change_feed import process_feed


class Banner:
    """What admin/base.html needs of the live pages; nothing is read before it is used."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @property
    def lines(self) -> str:
        """The problems as HTML."""
        viewer = viewer_of_request(self._request)
        if viewer is None:
            return ""
        problems = process_problems(process_feed)
        if viewer.may_see_nodes:
            problems += read_node_problems()
        return html_of(problems)

    @property
    def stream_url(self) -> str:
        return reverse("live-state")

    @property
    def login_url(self) -> str:
        return reverse("admin:login")


def banner(request: HttpRequest) -> dict[str, Any]:
    """Context processor."""
    return {"live": Banner(request)}


@never_cache
@require_safe
def state(request: HttpRequest) -> HttpResponse:
    """Respond with the first message of the stream; polled by pages without a stream."""
    viewer = viewer_of_request(request)
    if viewer is None:
        return JsonResponse({"ended": "logged_out"}, status=401)
    problems = process_problems(process_feed)
    try:
        problems += read_node_problems()
    except DatabaseError:
        process_feed.database_lost()
    html = html_for(problems, may_see_nodes=viewer.may_see_nodes)
    return JsonResponse({"now": int(timezone.now().timestamp() * 1000), "problems": html})
