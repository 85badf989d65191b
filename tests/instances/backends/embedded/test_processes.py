"""The outer and the inner process of the embedded server, part by part."""

from __future__ import annotations

import os
import socket

import pytest

from instances.backends.embedded import __main__ as program
from instances.backends.embedded import explanations, inner


@pytest.mark.parametrize(
    ("tail", "status", "code", "told"),
    [
        ("E ggml_aligned_malloc: insufficient memory (attempted …)\n", 1, 1, "out of memory"),
        ("GGML_ASSERT(ctx->mem_buffer != NULL) failed\n", -6, 134, "out of memory"),
        ("couldn't bind HTTP server socket, hostname: ::1, port: 80\n", 1, 1, "port in use: ::1"),
        ("unknown model architecture: 'new'\n", 1, 1, "architecture new"),
        ("I ready\n", -9, 137, "killed by SIGKILL, possibly by the system"),
        ("I ready\n", -11, 139, "killed by SIGSEGV"),
        ("I half a li", 1, 1, "the server ended; the lines above say why"),
        ("error: bad\nlate output\n", 1, 1, "bad"),
        ("", 1, 1, "the server ended"),
    ],
)
def test_failure_ends_with_a_reason(
    tail: str, status: int, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explanations.explain(tail, status) == code
    log = tail + capsys.readouterr().err
    last = log.splitlines()[-1]
    assert last.startswith("error: ")
    assert told in last


def test_a_reason_in_the_last_line_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert explanations.explain("error: bad\n", 1) == 1
    assert explanations.explain("I stopped\n", 0) == 0
    assert capsys.readouterr().err == ""


def test_an_unwritable_log_stops_nothing() -> None:
    source, writer = os.pipe()
    reader, sink = os.pipe()
    os.close(reader)
    os.write(writer, b"first\nlast\n")
    os.close(writer)
    assert program.pass_through(source, sink) == "first\nlast\n"
    os.close(source)
    os.close(sink)


def test_inner_process_ends_with_its_standard_input_or_its_http_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inner, "PROBE_SECONDS", 0.01)
    reader, writer = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert not inner.is_refused(address)
    assert inner.is_refused(address)
    assert inner.is_refused("unix:///none.sock")
    assert inner.wait_for_end(reader, address) == 1
    os.close(writer)
    assert inner.wait_for_end(reader, address) == 0
    os.close(reader)
