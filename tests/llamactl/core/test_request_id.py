from __future__ import annotations

import logging
import os

import pytest

from llamactl.core.request_id import client_headers, current_request, new_id
from llamactl.logging import LineFormatter


def test_an_id_has_128_bits_and_is_new_each_time() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in ids)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ([], None),
        ([b"req-1"], "req-1"),
        ([b"!~" * 64], "!~" * 64),
        ([b"x" * 129], ""),
        ([b""], ""),
        ([b"two words"], ""),
        ([b"tab\there"], ""),
        ([b"line\n"], ""),
        ([b"caf\xc3\xa9"], ""),
        ([b"\x1b[31m"], ""),
        ([b"one", b"two"], ""),
    ],
)
def test_an_id_of_the_client_is_at_most_128_visible_characters(
    sent: list[bytes], kept: str | None
) -> None:
    headers = [(b"host", b"x"), *((b"x-request-id", value) for value in sent)]
    assert client_headers(headers) == (kept, False)
    assert client_headers([*headers, (b"anthropic-version", b"2023-06-01")]) == (kept, True)


class Logged:
    def log_fields(self) -> dict[str, str]:
        return {"instance": "demo", "request_id": "ours", "client_request_id": "theirs"}


def test_every_line_of_a_request_has_its_ids() -> None:
    record = logging.LogRecord("any", logging.INFO, "x", 1, "said", (), None)
    assert LineFormatter().format(record).endswith(" any said")
    token = current_request.set(Logged())
    try:
        line = LineFormatter().format(record)
        assert line.endswith(" any said instance=demo request_id=ours client_request_id=theirs")
        # It should prefer the record's own: a line may be about another instance.
        record.instance = "other"
        assert " instance=other request_id=ours" in LineFormatter().format(record)
    finally:
        current_request.reset(token)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_makes_ids_of_its_own() -> None:
    new_id()  # fills the pool
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        theirs = pipe.read()
    assert len(theirs) == 32
    assert theirs not in {new_id() for _ in range(300)}
