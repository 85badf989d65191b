"""Facts about a model: from a backend's answers, its options, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instances import lifecycle
from instances.gguf_metadata import READ_BYTES, context_length
from instances.learned_model import remember_model
from instances.model_info import facts_of
from instances.models import Instance
from llamactl.models import Revision
from proxy.table.refresh import read_targets

LLAMA_MODELS = {
    "models": [{"name": "demo", "capabilities": ["completion"]}],
    "data": [
        {
            "id": "demo",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "meta": {"vocab_type": 1, "n_ctx": 2048, "n_ctx_train": 32768, "ftype": "Q4_K"},
        }
    ],
}
LLAMA_PROPS = {
    "default_generation_settings": {"n_ctx": 2048, "params": {}},
    "total_slots": 4,
    "modalities": {"vision": True, "video": False, "audio": True},
    "chat_template_caps": {"supports_tools": True, "supports_tool_calls": True},
}
VLLM_MODELS = {
    "data": [
        {"id": "lora", "parent": "base", "max_model_len": 5},
        {"id": "base", "parent": None, "max_model_len": 40960, "permission": []},
    ]
}


def test_llama_server_tells_by_models_and_props() -> None:
    assert facts_of(LLAMA_MODELS, LLAMA_PROPS) == {
        "context_length": 2048,
        "meta": {"n_ctx": 2048, "n_ctx_train": 32768, "vocab_type": 1},
        "input_modalities": ["text", "image", "audio"],
        "output_modalities": ["text"],
        "has_tools": True,
    }


def test_vllm_tells_the_length_of_its_own_model() -> None:
    assert facts_of(VLLM_MODELS, None)["context_length"] == 40960


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "text",
        {"data": 5},
        {"data": [7, {"max_model_len": "x", "meta": [], "architecture": 3}]},
        {"data": [{"max_model_len": True}]},
        {"data": [{"max_model_len": -1, "meta": {"n_ctx": 2**70}}]},
        {"data": [{"architecture": {"input_modalities": [{}, "x" * 10_000]}}]},
        {"default_generation_settings": {"n_ctx": 1.5}, "modalities": {"vision": "yes"}},
        {"chat_template_caps": {"supports_tools": True}},
    ],
)
def test_odd_answers_tell_nothing(answer: Any) -> None:
    facts = facts_of(answer, answer)
    assert facts.pop("has_tools", False) is False
    assert facts.pop("input_modalities") in (["text"], [])
    assert facts == {"meta": {}, "output_modalities": ["text"]}


OPTIONS = {"backend_type": "llama_cpp", "backend_options": {"model": "/m.gguf", "ctx_size": 8192}}


@pytest.mark.django_db
def test_facts_count_as_long_as_the_launch_options_are_the_same() -> None:
    instance = lifecycle.create("a", OPTIONS, cause="test")
    facts = facts_of(LLAMA_MODELS, LLAMA_PROPS)
    assert read_targets()["a"].info.context_length == 8192
    remember_model(instance.pk, 0, facts)
    before = Revision.numbers()
    remember_model(instance.pk, 0, facts)
    assert Revision.numbers() == before
    assert read_targets()["a"].info.context_length == 2048
    lifecycle.update("a", {"aliases": ["b"], "idle_timeout": 5}, cause="test")
    assert read_targets()["a"].info.has_tools is True
    lifecycle.update("a", {"backend_options": {"model": "/other.gguf"}}, cause="test")
    info = read_targets()["a"].info
    assert (info.context_length, info.has_tools) == (None, None)


@pytest.mark.django_db
def test_facts_of_an_earlier_process_are_not_stored() -> None:
    instance = lifecycle.create("a", OPTIONS, cause="test")
    lifecycle.request_start("a", cause="test")
    remember_model(instance.pk, 0, {"context_length": 5})
    remember_model(instance.pk, 1, {"context_length": 5})
    assert Instance.objects.get().model_info is None
    Instance.objects.update(observed_generation=1)
    remember_model(instance.pk, 1, {"context_length": 5})
    assert read_targets()["a"].info.context_length == 5
    remember_model(99, 1, {})


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("backend_type", "options", "length"),
    [
        ("llama_cpp", {"ctx_size": 8192, "parallel": 4}, 2048),
        ("llama_cpp", {"ctx_size": 8192, "parallel": 4, "kv_unified": True}, 8192),
        ("llama_cpp", {"ctx_size": 0}, None),
        ("llama_cpp", {}, None),
        ("vllm", {"max_model_len": 4096}, 4096),
        ("vllm", {"max_model_len": "auto"}, None),
        ("mlx_lm", {}, None),
    ],
)
def test_options_tell_the_length_of_one_request(
    backend_type: str, options: dict[str, object], length: int | None
) -> None:
    document = {"backend_type": backend_type, "backend_options": {"model": "/m.gguf", **options}}
    lifecycle.create("a", document, cause="test")
    assert read_targets()["a"].info.context_length == length


def text(value: str) -> bytes:
    return len(value).to_bytes(8, "little") + value.encode()


def gguf(*pairs: tuple[str, int, bytes], count: int | None = None) -> bytes:
    keys = len(pairs) if count is None else count
    head = b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + keys.to_bytes(8, "little")
    return head + b"".join(
        text(name) + kind.to_bytes(4, "little") + value for name, kind, value in pairs
    )


LENGTH = ("llama.context_length", 4, (4096).to_bytes(4, "little"))
WORDS = ("general.tags", 9, (8).to_bytes(4, "little") + (2).to_bytes(8, "little") + text("a") * 2)
NUMBERS = ("general.n", 9, (6).to_bytes(4, "little") + (3).to_bytes(8, "little") + bytes(12))


@pytest.mark.parametrize(
    ("content", "length"),
    [
        (gguf(("general.name", 8, text("x")), WORDS, NUMBERS, ("b", 7, b"\1"), LENGTH), 4096),
        (gguf(("x.context_length", 10, (2**20).to_bytes(8, "little"))), 2**20),
        (gguf(("x.context_length", 10, (2**40).to_bytes(8, "little"))), None),
        (gguf(("x.context_length", 8, text("x"))), None),
        (gguf(LENGTH)[:-2], None),
        (gguf(("a", 77, b""), LENGTH), None),
        (gguf(count=2**60), None),
        (gguf(("a", 8, (2**63).to_bytes(8, "little")), LENGTH), None),
        (gguf(("a", 8, text("x" * READ_BYTES)), LENGTH), None),
        (gguf(("a", 9, (8).to_bytes(4, "little") + (2**62).to_bytes(8, "little")), LENGTH), None),
        (gguf(("a", 9, (10).to_bytes(4, "little") + b"\xff" * 8), LENGTH), None),
        (b"GGUF", None),
        (b"", None),
        (b"<html>", None),
    ],
)
def test_file_tells_the_length_of_its_model(
    tmp_path: Path, content: bytes, length: int | None
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert context_length(path) == length
