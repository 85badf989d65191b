"""Which headers cross the proxy, in either direction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Pairs = list[tuple[bytes, bytes]]

_END = (b"", b"")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""These say so even where theirs is empty (RFC 9110, section 8.6)."""

# RFC 9110 section 7.6.1; Content-Length of a request is set anew from the body.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade".split()
)
# The client's credentials are for llamactl alone, and so are its session cookies.
_NOT_FOR_BACKENDS = _HOP_BY_HOP | frozenset(
    b"host content-length expect authorization x-api-key cookie".split()
)
# The seed's rule: the backend's own CORS headers are removed, llamactl answers for CORS.
_NOT_FOR_CLIENTS = _HOP_BY_HOP | frozenset(
    b"access-control-allow-origin access-control-allow-methods access-control-allow-headers"
    b" access-control-allow-credentials access-control-max-age access-control-expose-headers"
    b" server date".split()
)


def to_backend(headers: Iterable[tuple[bytes, bytes]], authorization: str | None) -> Pairs:
    """The request's headers as the backend gets them, with the backend's own key."""
    pairs = _passed_on(headers, _NOT_FOR_BACKENDS, frozenset())
    if authorization is not None:
        pairs.append((b"authorization", authorization.encode()))
    return pairs


def request_head(
    method: str, path_and_query: str, host: bytes, headers: Pairs, length: int | None
) -> bytes:
    """A request's line and headers, to their empty line.

    ``length``: of its body; ``None``: it comes in chunks. Raises ValueError where a part of it
    has a line end or a blank in the wrong place, which would make two requests of it: no server
    that we run under lets that come so far.
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
    is_one = head.count(b"\n") == head.count(b"\r") == len(lines) - 1
    if not is_one or " " in path_and_query or not path_and_query.isprintable():
        raise ValueError("a line end or a blank within a header or the target of a request")
    return head


def to_client(
    headers: Iterable[tuple[bytes, bytes]], added: Sequence[tuple[bytes, bytes]]
) -> Pairs:
    """The backend's headers (names in lower case) as the client gets them; configured ones take
    the place of its own."""
    names = frozenset([name for name, _ in added])
    return [*_passed_on(headers, _NOT_FOR_CLIENTS, names), *added]


def _passed_on(
    headers: Iterable[tuple[bytes, bytes]], dropped: frozenset[bytes], named: frozenset[bytes]
) -> Pairs:
    """Those that are neither ``dropped`` nor ``named``, here or by a Connection header."""
    pairs: Pairs = []
    for pair in headers:
        name = pair[0]
        if name == b"connection":
            named |= _tokens(pair[1])
        elif name not in dropped:
            pairs.append(pair)
    if named:
        # "Connection: x-foo" makes X-Foo hop-by-hop, wherever it stands.
        pairs = [pair for pair in pairs if pair[0] not in named]
    return pairs


def accepts_gzip(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a client says that it takes gzip (RFC 9110, section 12.5.3)."""
    said: dict[bytes, bool] = {}
    for name, value in headers:
        if name == b"accept-encoding":
            for item in value.lower().split(b","):
                coding, _, weight = item.replace(b" ", b"").partition(b";q=")
                said[coding] = weight.strip(b"0.") != b"" or weight == b""
    return said.get(b"gzip", said.get(b"x-gzip", said.get(b"*", False)))


def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))
