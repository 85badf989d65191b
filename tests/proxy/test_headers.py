from __future__ import annotations

import pytest

from proxy.headers import accepts_gzip, request_head, to_backend, to_client


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
    assert dict(to_backend(headers, None)) == {b"x-end": b"2"}


def test_backend_gets_its_own_key() -> None:
    headers = to_backend([(b"authorization", b"Bearer clients")], "Bearer backends")
    assert headers == [(b"authorization", b"Bearer backends")]


def test_repeated_and_odd_headers_reach_the_backend_in_order() -> None:
    headers = [(b"x-a", b"1"), (b"x-b", b"caf\xe9"), (b"x-a", b"2")]
    assert to_backend(headers, None) == headers


def test_api_headers_of_a_client_reach_the_backend() -> None:
    said = [
        (b"anthropic-version", b"2023-06-01"),
        (b"anthropic-beta", b"tools-2024-04-04"),
        (b"openai-organization", b"org-1"),
        (b"x-stainless-retry-count", b"0"),
    ]
    assert to_backend(said, None) == said


HEAD = b"POST /a?b HTTP/1.1\r\nHost: h:1\r\nx-a: 1\r\nContent-Length: 0\r\n\r\n"


def test_head_of_a_request_is_its_line_and_its_headers() -> None:
    assert request_head("POST", "/a?b", b"h:1", [(b"x-a", b"1")], 0) == HEAD
    get = request_head("GET", "/a?b", b"h:1", [(b"x-a", b"1")], 0)
    assert get == HEAD.replace(b"POST", b"GET").replace(b"Content-Length: 0\r\n", b"")
    chunked = request_head("POST", "/a?b", b"h:1", [(b"x-a", b"1")], None)
    assert chunked == HEAD.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize("bad", ["\r\n", "\n", "\r", " ", " HTTP/1.1\r\nx: y", "\x00", "\x7f"])
def test_target_that_would_make_another_request_of_it_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="line end"):
        request_head("GET", f"/a{bad}b", b"h:1", [], 0)


@pytest.mark.parametrize("bad", [b"\r\n", b"\n", b"\r", b"\r\n\r\nGET / HTTP/1.1"])
def test_header_that_would_make_another_of_it_is_refused(bad: bytes) -> None:
    for pair in ((b"x-a", b"1" + bad + b"2"), (b"x" + bad + b"a", b"1")):
        with pytest.raises(ValueError, match="line end"):
            request_head("GET", "/", b"h:1", [pair], 0)


@pytest.mark.parametrize("header", [(b"retry-after", b"7"), (b"x-should-retry", b"true")])
def test_retry_headers_of_a_backend_reach_the_client(
    header: tuple[bytes, bytes],
) -> None:
    assert to_client([header], [])[:-1] == [header]


def test_client_gets_the_backends_headers_without_its_cors_and_the_configured_ones() -> None:
    raw = [
        (b"content-type", b"text/event-stream"),
        (b"access-control-allow-origin", b"*"),
        (b"keep-alive", b"timeout=5"),
        (b"link", b"a=1"),
        (b"link", b"b=2"),
        (b"x-hop", b"1"),
        (b"connection", b"X-Hop"),
    ]
    assert to_client(raw, [(b"x-added", b"yes")]) == [
        (b"content-type", b"text/event-stream"),
        (b"link", b"a=1"),
        (b"link", b"b=2"),
        (b"x-added", b"yes"),
        (b"x-content-type-options", b"nosniff"),
    ]


def test_configured_header_takes_the_place_of_the_backends_own() -> None:
    raw = [(b"cache-control", b"no-cache"), (b"x-a", b"1")]
    added = [(b"cache-control", b"max-age=60")]
    assert to_client(raw, added)[:-1] == [(b"x-a", b"1"), (b"cache-control", b"max-age=60")]


def test_browsers_do_not_guess_the_type_of_a_backends_answer() -> None:
    nosniff = (b"x-content-type-options", b"nosniff")
    assert to_client([(b"x-content-type-options", b"none")], []) == [nosniff]
    # The operator's own header should win.
    added = [(b"x-content-type-options", b"other")]
    assert to_client([nosniff], added) == added


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
def test_client_accepts_gzip_by_its_header_alone(said: bytes | None, takes_it: bool) -> None:
    assert accepts_gzip([] if said is None else [(b"accept-encoding", said)]) is takes_it


@pytest.mark.parametrize(
    "name",
    [
        *("Set-Cookie", "Set-Cookie2", "Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc"),
        *("Service-Worker-Allowed", "WWW-Authenticate", "Refresh", "NEL", "Report-To"),
        *("Reporting-Endpoints", "Use-As-Dictionary", "Accept-CH", "Public-Key-Pins"),
        *("X-Accel-Redirect", "X-Accel-Buffering", "X-Accel-Limit-Rate", "X-Sendfile"),
        *("Access-Control-Allow-Origin", "Access-Control-Allow-Private-Network"),
        *("Timing-Allow-Origin", "Content-Location", "Speculation-Rules", "Shared-Storage-Write"),
        *("IdP-SignIn-Status", "Secure-Session-Challenge", "Proxy-Authentication-Info"),
        *("X-Sendfile2", "X-LiteSpeed-Purge", "X-Archive-Files", "CDN-Cache-Control"),
    ],
)
def test_no_header_of_a_backend_acts_on_the_origin_or_a_proxy(name: str) -> None:
    nosniff = (b"x-content-type-options", b"nosniff")
    assert to_client([(name.lower().encode(), b"1")], []) == [nosniff]
    # The operator's own header should pass.
    assert to_client([], [(name.lower().encode(), b"1")])[0] == (name.lower().encode(), b"1")
