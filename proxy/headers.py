"""Which headers cross the proxy, in either direction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from multidict import CIMultiDict

Pairs = list[tuple[bytes, bytes]]

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


def to_backend(
    headers: Iterable[tuple[bytes, bytes]], authorization: str | None
) -> CIMultiDict[str]:
    """The request's headers as the backend gets them, with the backend's own key."""
    pairs: CIMultiDict[str] = CIMultiDict()
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name == b"connection":
            named |= _tokens(value)
        elif name not in _NOT_FOR_BACKENDS:
            text = value.decode() if value.isascii() else _text(value)
            pairs.add(name.decode("latin-1"), text)
    for name in named:
        # "Connection: x-foo" makes X-Foo hop-by-hop, wherever it stands.
        pairs.popall(name.decode("latin-1"), None)
    if authorization is not None:
        pairs["Authorization"] = authorization
    return pairs


def to_client(raw: Iterable[tuple[bytes, bytes]], added: Sequence[tuple[bytes, bytes]]) -> Pairs:
    """The backend's headers as the client gets them; configured ones take the place of its own."""
    pairs: Pairs = []
    named: frozenset[bytes] = frozenset()
    for name, value in raw:
        lower = name.lower()
        if lower == b"connection":
            named |= _tokens(value)
        elif lower not in _NOT_FOR_CLIENTS:
            pairs.append((lower, value))
    if added:
        named |= {name for name, _ in added}
    if named:
        pairs = [pair for pair in pairs if pair[0] not in named]
    pairs.extend(added)
    return pairs


def _text(value: bytes) -> str:
    """aiohttp writes headers in UTF-8: what is UTF-8 leaves as it came, Latin-1 is converted."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


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
