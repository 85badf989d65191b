"""Paths in options: existing, missing, of the wrong kind, and paths that block."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from instances.backends.registry import backend_for
from instances.preflight.files import check_files

GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(56)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "good.gguf").write_bytes(GGUF)
    (tmp_path / "text").write_text("hello, I am a template: {{ messages }}")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to-good").symlink_to("good.gguf")
    return tmp_path


def check(directory: Path, backend_type: str = "llama_cpp", **options: Any) -> list[str]:
    return [f.text for f in check_files(backend_for(backend_type), options, directory)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": "good.gguf"},
        {"model": "to-good", "mmproj": "good.gguf", "model_draft": "good.gguf"},
        {"lora": ["good.gguf", "good.gguf,good.gguf"], "lora_scaled": ["good.gguf:0.5"]},
        {"chat_template_file": "text", "grammar_file": "text", "ssl_cert_file": "text"},
        {"models_dir": "folder", "slot_save_path": "folder"},
        {"model": "not-there-yet.gguf", "hf_repo": "owner/name"},
        {"model": "not-there-yet.gguf", "model_url": "https://example.org/x.gguf"},
        {"log_file": "/nonexistent/log", "lookup_cache_dynamic": "/nonexistent/cache"},
    ],
)
def test_an_existing_file_is_no_finding(directory: Path, options: dict[str, Any]) -> None:
    assert check(directory, **options) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "/nonexistent/m.gguf"}, "'/nonexistent/m.gguf' does not exist"),
        ({"model": "m"}, "below"),
        ({"model": "godo.gguf"}, "did you mean 'good.gguf'?"),
        ({"model": "~/m.gguf"}, "~ is not expanded"),
        ({"model": "folder"}, "must be a GGUF file, but 'folder' is a directory"),
        ({"model": "text"}, "'text' is a text file"),
        ({"model": "loop"}, "its symbolic links go round in a circle"),
        ({"model": "good.gguf/x"}, "not a directory"),
        ({"model": "x" * 10_000}, "file name too long"),
        ({"model": "a\x00b"}, "it holds a NUL character"),
        ({"model": "\ud800"}, "can't be checked"),
        ({"model": "fifo"}, "is a FIFO"),
        ({"model": "/dev/zero"}, "is a device"),
        ({"model": "/proc/self/mem"}, "can't be read"),
        ({"model": "/proc/self/auxv"}, "begin"),
        ({"mmproj": "text"}, "backend_options.mmproj: must be a GGUF file"),
        ({"model_draft": "nowhere"}, "backend_options.model_draft: 'nowhere' does not exist"),
        ({"lora": ["good.gguf", "nowhere"]}, "backend_options.lora: 'nowhere' does not exist"),
        ({"lora_scaled": ["nowhere:0.5"]}, "'nowhere' does not exist"),
        ({"chat_template_file": "folder"}, "must be a file, but 'folder' is a directory"),
        ({"models_dir": "text"}, "must be a directory, but 'text' is a file"),
    ],
)
def test_the_finding_names_the_problem_of_a_path(
    directory: Path, options: dict[str, Any], said: str
) -> None:
    (finding,) = check(directory, **options)
    assert said in finding.replace("doesn't", "does not")
    assert len(finding) < 700


def test_a_fifo_in_place_of_a_text_file_does_not_block(directory: Path) -> None:
    (finding,) = check(directory, chat_template_file="fifo")
    assert "is a FIFO" in finding


def test_socket_is_no_model(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        (finding,) = check(directory, model="s")
    assert "is a socket" in finding


def test_models_of_hubs_may_be_names_or_directories(directory: Path) -> None:
    assert check(directory, "vllm", model="owner/name") == []
    assert check(directory, "vllm", model=str(directory / "folder")) == []
    assert check(directory, "vllm", model=str(directory / "good.gguf")) == []
    assert "does not exist" in check(directory, "vllm", model="./nowhere")[0]
    assert check(directory, "vllm", chat_template="{{ messages }}") == []
    assert "is a file" in check(directory, "mlx_lm", model=str(directory / "text"))[0]
    assert "does not exist" in check(directory, "mlx_lm", adapter_path="nowhere")[0]


def test_model_in_parts_needs_all_of_them(directory: Path) -> None:
    for part in (1, 2):
        (directory / f"big-{part:05}-of-00003.gguf").write_bytes(GGUF)
    (finding,) = check(directory, model="big-00001-of-00003.gguf")
    assert "1 are missing, part 3 for one" in finding
    (finding,) = check(directory, model="big-00002-of-00003.gguf")
    assert "give the first" in finding
    (directory / "big-00003-of-00003.gguf").write_bytes(GGUF)
    assert check(directory, model="big-00001-of-00003.gguf") == []


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"", "is empty"),
        (b"GGUF\x03", "is not complete"),
        (b"GGUF" + (3).to_bytes(4, "big") + bytes(56), "big-endian"),
        (b"GGUF" + b"\xff" * 60, "has version 4294967295"),
        (b"GGUF" + bytes(60), "has version 0"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"PK\x03\x04", "zip"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a": 1}', "safetensors"),
        (bytes(64), "zeros"),
        (b"\xff" * 64, "does not begin with GGUF"),
    ],
)
def test_the_kind_of_another_file_is_named(tmp_path: Path, header: bytes, said: str) -> None:
    (tmp_path / "m.gguf").write_bytes(header)
    (finding,) = check(tmp_path, model="m.gguf")
    assert said in finding


def test_real_model_is_no_finding(gemma_model: Path) -> None:
    assert check(Path("/"), model=str(gemma_model)) == []


def test_the_number_of_checked_paths_is_bounded(directory: Path) -> None:
    findings = check(directory, lora=[f"a{n}" for n in range(3000)], chat_template_file="nowhere")
    assert len(findings) == 21
