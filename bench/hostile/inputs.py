"""The hostile requests: those that were found, and generated ones at the limits.

Each is the bytes of one connection, sent as a client without a key would send them, or with a key.
Add a subject's inputs as a function that yields ``Input``, and name the function in ``SOURCES``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import NonInteractiveExampleWarning

from bench.hostile.answers import HANDSHAKE, hostile_answers
from bench.hostile.documents import forms, inference_documents, management_documents
from bench.hostile.floods import found_floods, found_sockets
from bench.hostile.request import COOKIES, MANAGEMENT, MIB, Input, head, post

T = TypeVar("T")


def found_heads() -> Iterator[Input]:
    """Heads that reach a parser whose time grows with the square of a length."""
    lines = (
        b'Content-Type: x; a="' + b";" * 60_000,
        b'Content-Type: x; a="' + b";" * 470,
        b"Content-Type: multipart/form-data; boundary=" + b";" * 450,
        b'Cookie: a="' + b"\\" * 60_000,
        b'Cookie: a="' + b"\\" * 4_000 + b'"',
        b"Accept: " + b"a/b;q=1," * 900,
        b"Accept-Language: " + b"a-" * 4_000,
        b"Authorization: Bearer " + b"a" * 8_000,
        b"Range: bytes=" + b"0-," * 2_600,
        b"X-Forwarded-For: " + b"127.0.0.1," * 800,
        b"\r\n".join([b"X-Forwarded-For: " + b"127.0.0.1," * 800] * 7),
        b"\r\n".join(b"x-%d: y" % number for number in range(4_000)),
    )
    for line in lines:
        for target in (b"/healthz", b"/admin/login/", b"/api/v1/instances", b"/v1/models"):
            yield head(line, target=target)
        yield head(HANDSHAKE + line, target=b"/api/v1/instances/x/proxy/ws", name="handshake")
    for query in (b"a&" * 30_000, b"a=%41&" * 1_300, b"api_key=a&" * 800):
        yield head(b"X-A: b", target=b"/admin/login/?" + query, name="query")
        yield head(b"X-A: b", target=b"/v1/models?" + query, name="query with a key")


def found_queries() -> Iterator[Input]:
    """Queries at the limit of a request line: lists of the admin, and the management API."""
    cookies = b"Cookie: " + COOKIES
    key = b"Authorization: Bearer " + MANAGEMENT
    unit = b"%41%C3%BC%F0%9F%98%80"
    pages = (b"instances/instance/", b"keys/inferencekey/", b"nodes/node/", b"auth/user/")
    for path in (b"/admin/" + page for page in pages):
        for parameter in (b"q", b"o", b"p", b"status__exact", b"all", b"id__in"):
            for value in (unit * 300, b"a+" * 3_500, b"1." * 3_500, b"%00%27%22," * 700):
                for size in (2_000, 7_500):
                    target = b"%b?%b=%b" % (path, parameter, value[:size])
                    yield head(cookies, target=target, name=f"query {target[:40].decode()}")
    for path in (b"instances", b"nodes", b"auth/keys", b"instances/hostile/logs"):
        for query in (
            b"lines=1&" * 900,
            b"lines=999999999",
            b"lines=1",
            unit * 300,
            b"a=&" * 2_000,
        ):
            target = b"/api/v1/%b?%b" % (path, query)
            yield head(key, target=target, name=f"query {target[:40].decode()}")


def found_bodies() -> Iterator[Input]:
    """Bodies that stopped the loop, or took a hundred times their size."""
    json_type, chat = b"application/json", b"/v1/chat/completions"
    yield post(chat, json_type, b'{"model":"' + b"a" * 16 * MIB + b'"}', name="a long model")
    yield post(chat, json_type, b'{"a":' + b"[" * MIB + b"]" * MIB + b"}", name="deep JSON")
    yield post(chat, json_type, b'{"a":[' + b"{}," * 4 * MIB + b"{}]}", name="many objects")
    yield post(chat, json_type, b'{"a":"' + b"\\u0041" * 2 * MIB + b'"}', name="escapes")
    yield post(chat, json_type, b"{" + b'"a":1,' * MIB + b'"model":"x"}', name="many names")
    part = b'--b\r\nContent-Disposition: form-data; name="a' + b";" * 8_000 + b'"\r\n\r\n\r\n'
    form = b"multipart/form-data; boundary=b"
    for path in (b"/v1/audio/transcriptions", b"/admin/login/"):
        yield post(path, form, part * 400 + b"--b--\r\n", name="a form of long names")
        short = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
        yield post(path, form, short * 20_000 + b"--b--\r\n", name="a form of many parts")


def generated() -> Iterator[Input]:
    """Some hundred requests of the shapes of the found ones, the same ones at each run."""
    names = ("Accept", "Content-Type", "Cookie", "Host", "Range", "X-Forwarded-For", "X-API-Key")
    units = st.sampled_from([*';\\",=&[( \t:é', "%41", "a*0*=''", "a;", "\\0"])
    values = st.builds(
        lambda start, unit, size: (start + unit * (size // len(unit)))[:size],
        st.sampled_from(("", 'a="', "text/html;", "bytes=", "multipart/form-data; boundary=", "[")),
        units,
        st.sampled_from((490, 4_000, 8_000, 60_000)),
    )
    lines = st.lists(st.tuples(st.sampled_from(names), values), min_size=1, max_size=7)
    targets = st.sampled_from((b"/healthz", b"/", b"/admin/login/", b"/api/v1/nodes", b"/v1/x"))
    leaf = st.sampled_from((0, 10**400, "a" * 5_000, '"\\' * 2_000, None, True))
    documents = st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(lambda each, times: [each] * times, inner, st.sampled_from((1, 2_000))),
            st.dictionaries(st.sampled_from(("model", "messages", "a" * 900)), inner),
        ),
        max_leaves=8,
    )
    for number, (headers, target) in enumerate(_examples(st.tuples(lines, targets), 200)):
        text = "\r\n".join(f"{name}: {value}" for name, value in headers)
        yield head(text.encode("latin-1"), target=target, name=f"generated head {number}")
    for number, document in enumerate(_examples(documents, 100)):
        body = json.dumps({"model": document}).encode()[: 8 * MIB]
        yield post(
            b"/v1/chat/completions", b"application/json", body, name=f"generated JSON {number}"
        )


def _examples(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """The same ``count`` examples of ``strategy`` at each run."""
    found: list[T] = []

    @seed(11)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: T) -> None:
        found.append(example)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonInteractiveExampleWarning)
        collect()
    return found[:count]


SOURCES: tuple[Callable[[], Iterator[Input]], ...] = (
    found_heads,
    found_queries,
    found_bodies,
    found_floods,
    found_sockets,
    inference_documents,
    management_documents,
    forms,
    hostile_answers,
    generated,
)


def all_inputs() -> Iterator[Input]:
    for source in SOURCES:
        yield from source()
