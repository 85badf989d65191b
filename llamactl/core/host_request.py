"""Django's request for names of hosts with an underscore."""

from __future__ import annotations

from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http.request import split_domain_port


class HostRequest(ASGIRequest):
    """A request to a host such as ``llama_ctl``, which is a usual name of a service in Docker.

    Django refuses the underscore with 400 (RFC 1034 has none), but the paths of the proxy take it:
    the management API has to be reachable by the same name.
    """

    def get_host(self) -> str:
        try:
            return super().get_host()
        except DisallowedHost:
            host = str(self.META.get("HTTP_HOST", ""))
            if "_" in host and split_domain_port(host.replace("_", "-"))[0]:
                return host
            raise
