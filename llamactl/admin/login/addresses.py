"""Client addresses, as the limits on logins count them."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address

from django.http import HttpRequest

UNKNOWN = "unknown"


def client_network(request: HttpRequest) -> str:
    """Return the client's IPv4 address, or the /64 of its IPv6 address: one site has a whole /64.

    The address is the connection's. ``X-Forwarded-For`` counts only from a reverse proxy on this
    machine (``llamactl.asgi``). All clients without a readable address share one.
    """
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", "").partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(IPv6Network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)
