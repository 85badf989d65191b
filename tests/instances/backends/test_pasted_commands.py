"""Pasted commands as web pages, word processors and other shells write them."""

from __future__ import annotations

import contextlib
import time

import pytest

from instances.backends.command_errors import CommandError
from instances.backends.registry import backend_for


@pytest.mark.parametrize(
    ("typed", "model"),
    [
        (r"C:\models\q.gguf", r"C:\models\q.gguf"),
        (r"C:\\models\\q.gguf", r"C:\models\q.gguf"),
        (r'"C:\my models\q.gguf"', r"C:\my models\q.gguf"),
        (r'"C:\\my models\\q.gguf"', r"C:\my models\q.gguf"),
        (r"'C:\my models\q.gguf'", r"C:\my models\q.gguf"),
        (r'"C:\models\"', "C:\\models\\"),
        (r"C:\models\_new\.cache\q.gguf", r"C:\models\_new\.cache\q.gguf"),
        (r"\\server\share\q.gguf", r"\\server\share\q.gguf"),
        (r'"\\server\share\q.gguf"', r"\\server\share\q.gguf"),
        (r".\q.gguf", r".\q.gguf"),
        (r"..\models\q.gguf", r"..\models\q.gguf"),
        (r"models\q.gguf", r"models\q.gguf"),
        (r"/my\ models/q.gguf", "/my models/q.gguf"),
        ("'$HOME/q.gguf'", "$HOME/q.gguf"),
        (r"\$HOME/q.gguf", "$HOME/q.gguf"),
        ("q$.gguf", "q$.gguf"),
        ("\u201cmy q.gguf\u201d", "my q.gguf"),
        ("\u201emy q.gguf\u201c", "my q.gguf"),
        ("\u2018my q.gguf\u2019", "my q.gguf"),
        ('\u201cmy q.gguf"', "my q.gguf"),
        ('"Ann\u2019s q.gguf"', "Ann\u2019s q.gguf"),
        ("q\u200b.gguf\ufeff", "q.gguf"),
        ("Qwen\u20138B.gguf", "Qwen\u20138B.gguf"),
    ],
)
@pytest.mark.parametrize("form", ["-m {}", "--model={}", "--model {} -c 5", "-c 5 \u2013m {}"])
def test_a_model_that_was_pasted_is_the_one_that_was_meant(
    typed: str, model: str, form: str
) -> None:
    command = f"llama-server {form.format(typed)}"
    read = backend_for("llama_cpp").parse_command(command).backend_options["model"]
    assert read == model
    # orjson takes no subclass.
    assert type(read) is str


@pytest.mark.parametrize(
    "command",
    [
        "llama-server -m a.gguf -ngl 9 --ctx-size 5 -n -1 --no-mmap",
        "llama-server \u2013m a.gguf \u2013ngl 9 \u2013ctx-size 5 \u2013n \u22121 \u2014no-mmap",
        "llama-server \u2014m a.gguf \u2014ngl 9 \u2014ctx\u2010size 5 -n \u20131 \u2013-no-mmap",
        "llama-server \u2013m=a.gguf -ngl 9 \u2014ctx-size=5 -n -1 -\u2013no\u2011mmap",
        "llama-server\u00a0-m\u00a0a.gguf -ngl\u20099 --ctx-size\u30005 -n -1 --no-mmap",
        "$ llama-server -m a.gguf -ngl 9 --ctx-size 5 -n -1 --no-mmap",
        "> sudo nohup llama-server -m a.gguf -ngl 9 --ctx-size 5 -n -1 --no-mmap",
        "llama-server.exe ^\r\n -m a.gguf -ngl 9 ^ \r\n --ctx-size 5 -n -1 --no-mmap",
        "llama-server `\n -m a.gguf -ngl 9 `\n --ctx-size 5 -n -1 --no-mmap",
        "llama-server \\  \n -m a.gguf -ngl 9 \\\r\n --ctx-size 5 -n -1 --no-mmap",
        "llama-server -m a.gguf -ngl 9 --ctx-size 5 -n -1 --no-mmap --port $PORT",
        'llama-server -m a.gguf -ngl 9 --ctx-size 5 -n -1 --no-mmap --port="${PORT}"',
    ],
)
def test_a_command_is_understood_as_web_pages_and_other_shells_write_it(command: str) -> None:
    parsed = backend_for("llama_cpp").parse_command(command)
    assert parsed.environment == {}
    assert parsed.backend_options == {
        "model": "a.gguf",
        "gpu_layers": 9,
        "ctx_size": 5,
        "predict": -1,
        "no_mmap": True,
    }


@pytest.mark.parametrize(
    "words", ["a\\a " * 12_000, '"' * 60_000, "\\" * 60_000, "$" * 60_000, "`" * 60_000]
)
def test_a_long_command_is_read_in_linear_time(words: str) -> None:
    began = time.process_time()
    with contextlib.suppress(CommandError):
        backend_for("llama_cpp").parse_command(f"llama-server {words}")
    # A second is many times what it takes, and a small part of what quadratic reading took.
    assert time.process_time() - began < 1
