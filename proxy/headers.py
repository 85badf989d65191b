"""Headers of requests and responses on their way through the proxy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llamactl.core.request_id import ANTHROPIC_HEADER, HEADER

Pairs = list[tuple[bytes, bytes]]

_END = (b"", b"")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""Methods that announce even an empty body (RFC 9110, section 8.6)."""

# RFC 9110, section 7.6.1. A request's Content-Length is set anew from the body.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade".split()
)
# The client's credentials are for llamactl alone, and so are its session cookies. A packed body is
# sent on unpacked.
_NOT_FOR_BACKENDS = _HOP_BY_HOP | frozenset(
    b"host content-length content-encoding expect authorization x-api-key cookie".split()
)
# A backend must not act on llamactl's origin: on its cookies and logins, on the whole of its
# storage and connections, and on what browsers keep for it (workers, reports, dictionaries, hints).
_FOR_THE_ORIGIN = frozenset(
    b"set-cookie set-cookie2 clear-site-data strict-transport-security alt-svc expect-ct"
    b" public-key-pins public-key-pins-report-only service-worker-allowed www-authenticate"
    b" authentication-info authentication-control optional-www-authenticate"
    b" proxy-authentication-info set-login login-status idp-signin-status"
    b" secure-session-registration secure-session-challenge secure-session-skipped"
    b" sec-session-registration sec-session-challenge nel report-to reporting-endpoints"
    b" use-as-dictionary accept-ch critical-ch refresh origin-agent-cluster speculation-rules"
    b" activate-storage-access shared-storage-write observe-browsing-topics"
    b" attribution-reporting-register-source attribution-reporting-register-trigger"
    b" ad-auction-signals ad-auction-result ad-auction-additional-bid".split()
)
# A backend's ids are not those of llamactl's log.
_IDS = frozenset((HEADER, ANTHROPIC_HEADER))
# Of orders to a reverse proxy in front, some send a file of that machine, some change or empty its
# cache, and the others change the buffering, which is for llamactl to say.
_FOR_PROXIES = frozenset(
    b"x-accel-redirect x-accel-expires x-accel-limit-rate x-accel-buffering x-accel-charset"
    b" x-sendfile x-sendfile2 x-sendfile-temporary x-lighttpd-send-file x-lighttpd-send-tempfile"
    b" x-archive-files x-reproxy-url x-reproxy-file x-litespeed-location x-litespeed-cache"
    b" x-litespeed-cache-control x-litespeed-purge x-litespeed-purge2 x-litespeed-tag"
    b" x-litespeed-vary x-litespeed-alt-svc surrogate-control surrogate-key cdn-cache-control"
    b" cloudflare-cdn-cache-control edge-control".split()
)
# The seed's rule: the backend's own CORS headers are removed, llamactl answers for CORS.
_NOT_FOR_CLIENTS = (
    _HOP_BY_HOP
    | _FOR_THE_ORIGIN
    | _FOR_PROXIES
    | _IDS
    | frozenset(
        b"access-control-allow-origin access-control-allow-methods access-control-allow-headers"
        b" access-control-allow-credentials access-control-max-age access-control-expose-headers"
        b" access-control-allow-private-network timing-allow-origin server date content-location"
        b" x-content-type-options".split()
    )
)
_NOSNIFF = (b"x-content-type-options", b"nosniff")
"""A backend's answer has llamactl's origin, so a browser must not guess that it is a page."""


def to_backend(headers: Iterable[tuple[bytes, bytes]], authorization: str | None) -> Pairs:
    """The request's headers for the backend, with the backend's own key."""
    pairs = _filtered(headers, _NOT_FOR_BACKENDS, frozenset())
    if authorization is not None:
        pairs.append((b"authorization", authorization.encode()))
    return pairs


def with_client_id(headers: Pairs, client_id: str) -> Pairs:
    """The headers with this one ``X-Request-Id``, or with none if the client's was unusable."""
    others = [pair for pair in headers if pair[0] != HEADER]
    return [*others, (HEADER, client_id.encode())] if client_id else others


def request_head(
    method: str, path_and_query: str, host: bytes, headers: Pairs, length: int | None
) -> bytes:
    """The head of a request, with its final empty line.

    ``length``: that of the body; ``None`` for a chunked body. Raises ValueError for a line end or a
    blank that would split the request in two. No server that llamactl runs under lets such a
    request through to here.
    """
    lines = [
        b"%b %b HTTP/1.1" % (method.encode(), path_and_query.encode("latin-1")),
        b"Host: " + host,
        *map(b": ".join, headers),
    ]
    if length is None:
        lines.append(b"Transfer-Encoding: chunked")
    elif length or method in _WITH_BODY:
        lines.append(b"Content-Length: %d" % length)
    lines += _END
    head = b"\r\n".join(lines)
    is_one_head = head.count(b"\n") == head.count(b"\r") == len(lines) - 1
    if not is_one_head or " " in path_and_query or not path_and_query.isprintable():
        raise ValueError("a line end or a blank within a header or the target of a request")
    return head


def to_client(
    headers: Iterable[tuple[bytes, bytes]], added: Sequence[tuple[bytes, bytes]]
) -> Pairs:
    """The backend's headers (names in lower case) for the client.

    ``added`` are the configured headers; each replaces the backend's headers of its name.
    """
    if not added:
        return [*_filtered(headers, _NOT_FOR_CLIENTS, frozenset()), _NOSNIFF]
    names = frozenset([name for name, _ in added])
    pairs = [*_filtered(headers, _NOT_FOR_CLIENTS, names), *added]
    if _NOSNIFF[0] not in names:
        pairs.append(_NOSNIFF)
    return pairs


def _filtered(
    headers: Iterable[tuple[bytes, bytes]], dropped: frozenset[bytes], named: frozenset[bytes]
) -> Pairs:
    """The headers without ``dropped``, ``named``, and the names in a Connection header."""
    pairs: Pairs = []
    for pair in headers:
        name = pair[0]
        if name == b"connection":
            named |= _tokens(pair[1])
        elif name not in dropped:
            pairs.append(pair)
    if named:
        # "Connection: x-foo" makes X-Foo hop-by-hop, before or after it.
        pairs = [pair for pair in pairs if pair[0] not in named]
    return pairs


def accepts_gzip(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the client accepts gzip (RFC 9110, section 12.5.3)."""
    accepted: dict[bytes, bool] = {}
    for name, value in headers:
        if name == b"accept-encoding":
            for item in value.lower().split(b","):
                coding, _, weight = item.replace(b" ", b"").partition(b";q=")
                accepted[coding] = weight.strip(b"0.") != b"" or weight == b""
    return accepted.get(b"gzip", accepted.get(b"x-gzip", accepted.get(b"*", False)))


def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))
