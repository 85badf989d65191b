from __future__ import annotations

import pytest

from proxy.headers import accepts_gzip, to_backend, to_client


@pytest.mark.parametrize(
    "name",
    [
        b"authorization",
        b"x-api-key",
        b"cookie",
        b"host",
        b"connection",
        b"te",
        b"upgrade",
        b"transfer-encoding",
        b"content-length",
        b"proxy-authorization",
    ],
)
def test_clients_secrets_and_hop_by_hop_headers_stay_here(name: bytes) -> None:
    assert not to_backend([(name, b"secret")], None)


def test_header_named_by_connection_stays_here_wherever_it_stands() -> None:
    headers = [(b"x-hop", b"1"), (b"connection", b"keep-alive, X-Hop"), (b"x-end", b"2")]
    assert dict(to_backend(headers, None)) == {"x-end": "2"}


def test_backend_gets_its_own_key() -> None:
    headers = to_backend([(b"authorization", b"Bearer clients")], "Bearer backends")
    assert headers.getall("authorization") == ["Bearer backends"]


def test_repeated_and_odd_headers_reach_the_backend_in_order() -> None:
    headers = to_backend([(b"x-a", b"1"), (b"x-b", b"caf\xe9"), (b"x-a", b"2")], None)
    assert list(headers.items()) == [("x-a", "1"), ("x-b", "caf\xe9"), ("x-a", "2")]


def test_what_a_client_says_of_its_api_reaches_the_backend() -> None:
    said = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "tools-2024-04-04",
        "openai-organization": "org-1",
        "x-stainless-retry-count": "0",
    }
    headers = [(name.encode(), text.encode()) for name, text in said.items()]
    assert dict(to_backend(headers, None)) == said


@pytest.mark.parametrize(
    "header", [(b"retry-after", b"7"), (b"x-should-retry", b"true"), (b"request-id", b"req_1")]
)
def test_what_a_backend_says_of_trying_again_reaches_the_client(
    header: tuple[bytes, bytes],
) -> None:
    assert to_client([header], []) == [header]


def test_client_gets_the_backends_headers_without_its_cors_and_the_configured_ones() -> None:
    raw = [
        (b"Content-Type", b"text/event-stream"),
        (b"Access-Control-Allow-Origin", b"*"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"X-Hop", b"1"),
        (b"Connection", b"X-Hop"),
    ]
    assert to_client(raw, [(b"x-added", b"yes")]) == [
        (b"content-type", b"text/event-stream"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-added", b"yes"),
    ]


def test_configured_header_takes_the_place_of_the_backends_own() -> None:
    raw = [(b"Cache-Control", b"no-cache"), (b"X-A", b"1")]
    added = [(b"cache-control", b"max-age=60")]
    assert to_client(raw, added) == [(b"x-a", b"1"), (b"cache-control", b"max-age=60")]


@pytest.mark.parametrize(
    ("said", "takes_it"),
    [
        (None, False),
        (b"", False),
        (b"identity", False),
        (b"gzip", True),
        (b"br, GZIP ;q=0.5", True),
        (b"gzip;q=0, br", False),
        (b"gzip; q=0.000, *", False),
        (b"*", True),
        (b"*;q=0", False),
        (b"x-gzip", True),
    ],
)
def test_gzip_is_taken_by_who_says_so(said: bytes | None, takes_it: bool) -> None:
    assert accepts_gzip([] if said is None else [(b"accept-encoding", said)]) is takes_it
