"""Audio by the openai client: the model stands in a form, beside the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.lazy_import import lazy_import
from tests.support.paths import FAKE_BACKEND
from tests.support.stack import Stack

if TYPE_CHECKING:
    import openai
else:
    openai = lazy_import("openai")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

PROGRAM = str(FAKE_BACKEND)
# Every byte value, line breaks, a lookalike of a boundary, and more than one buffer.
RECORDING = b"RIFF--\r\n----\r\n\r\n" + bytes(range(256)) * 8192


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    # llama.cpp's instances are known to their backend by their own name, vLLM's by the model's.
    stack.create("listener", {"model": "fake"}, command_override=PROGRAM)
    stack.create("whisper", {"model": "org/whisper"}, backend_type="vllm", command_override=PROGRAM)
    key = stack.new_key()
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0) as client:
        yield client


def parts_of(answer: Any) -> dict[str, dict[str, str]]:
    return {part["name"]: part for part in answer.parts}


@pytest.mark.parametrize(("name", "served"), [("listener", "listener"), ("whisper", "org/whisper")])
def test_transcription_reaches_the_model_that_the_form_names(
    client: openai.OpenAI, name: str, served: str
) -> None:
    answer = client.audio.transcriptions.create(
        model=name,
        file=("Grüße.wav", RECORDING, "audio/wav"),
        language="de",
        temperature=0.5,
        timestamp_granularities=["word"],
    )
    parts = parts_of(answer)
    assert parts["model"]["value"] == served
    assert parts["language"]["value"] == "de"
    assert parts["temperature"]["value"] == "0.5"
    assert parts["timestamp_granularities[]"]["value"] == "word"
    # It should have carried the file byte for byte, and its name.
    assert parts["file"]["value"] == hashlib.sha256(RECORDING).hexdigest()
    assert parts["file"]["filename"] == "Grüße.wav"


def test_translation_is_routed_alike(client: openai.OpenAI) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        answer = client.audio.translations.create(model="whisper", file=("a.wav", RECORDING))
    assert parts_of(answer)["model"]["value"] == "org/whisper"


def test_form_is_refused_to_a_key_of_another_instance(stack: Stack, client: openai.OpenAI) -> None:
    listener = stack.instance("listener")["id"]
    key = stack.new_key(permission_mode="per_instance", instance_ids=[listener])
    limited = client.with_options(api_key=key)
    assert limited.audio.transcriptions.create(model="listener", file=("a.wav", b"RIFF")).text
    with pytest.raises(openai.PermissionDeniedError):
        limited.audio.transcriptions.create(model="whisper", file=("a.wav", b"RIFF"))
