"""The openai and anthropic clients at wrong base URLs, and with APIs that no backend has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import requests

from instances.backends.llama_cpp.served_paths import SERVED_PATHS
from tests.support.lazy_import import lazy_import
from tests.support.stack import Stack

if TYPE_CHECKING:
    import anthropic
    import openai
else:
    anthropic = lazy_import("anthropic")
    openai = lazy_import("openai")

pytestmark = [pytest.mark.e2e, pytest.mark.llama_cpp, pytest.mark.timeout(180)]

GREETING: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def key(stack: Stack, model: dict[str, object]) -> str:
    stack.create("demo", model)
    stack.create("idle", model)
    return stack.new_key()


@pytest.fixture(scope="module")
def client(stack: Stack, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(stack: Stack, key: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=stack.url, api_key=key, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("base", ["", "/"])
def test_openais_client_without_v1_gets_models_and_chats(stack: Stack, key: str, base: str) -> None:
    with openai.OpenAI(base_url=stack.url + base, api_key=key, max_retries=0) as client:
        assert {model.id for model in client.models.list()} == {"demo", "idle"}
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model="idle", messages=GREETING, extra_query={"autoload": "false"}
            )
        assert "model is not loaded" in caught.value.message
        with pytest.raises(openai.NotFoundError) as missed:
            client.completions.create(model="idle", prompt="x")
        assert "use /v1/completions " in missed.value.message


@pytest.mark.parametrize("base", ["/v1/v1", "/v1//", "//v1", "/openai/v1", "/api/v1"])
def test_openais_client_at_a_wrong_base_url_is_told_the_right_path(
    stack: Stack, key: str, base: str
) -> None:
    with openai.OpenAI(base_url=stack.url + base, api_key=key, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="idle", messages=GREETING)
        assert "use /v1/chat/completions " in caught.value.message
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.list()
        assert "use /v1/models " in caught.value.message


@pytest.mark.parametrize("base", ["/v1", "/v1/v1", "/anthropic"])
def test_anthropics_client_at_a_wrong_base_url_is_told_the_right_path(
    stack: Stack, key: str, base: str
) -> None:
    with anthropic.Anthropic(base_url=stack.url + base, api_key=key, max_retries=0) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            client.messages.create(model="idle", messages=GREETING, max_tokens=1)
        assert "use /v1/messages " in caught.value.message
        with pytest.raises(anthropic.NotFoundError) as caught:
            client.models.list()
        assert "use /v1/models " in caught.value.message


ABSENT: dict[str, Callable[[openai.OpenAI], object]] = {
    "files": lambda client: client.files.list(),
    "file": lambda client: client.files.create(file=b"{}", purpose="batch"),
    "batches": lambda client: client.batches.list(),
    "batch": lambda client: client.batches.create(
        completion_window="24h", endpoint="/v1/chat/completions", input_file_id="file-1"
    ),
    "vector stores": lambda client: client.vector_stores.create(name="x"),
    "fine-tuning": lambda client: client.fine_tuning.jobs.create(
        model="idle", training_file="file-1"
    ),
    "moderation": lambda client: client.moderations.create(input="x"),
    "response": lambda client: client.responses.retrieve("resp_1"),
    "cancelled response": lambda client: client.responses.cancel("resp_1"),
    "deleted response": lambda client: client.responses.delete("resp_1"),
    "items of a response": lambda client: client.responses.input_items.list("resp_1"),
    "stored completion": lambda client: client.chat.completions.retrieve("chatcmpl-1"),
    "conversation": lambda client: client.conversations.create(),
    "container": lambda client: client.containers.list(),
    "evals": lambda client: client.evals.list(),
}


@pytest.mark.parametrize("call", ABSENT.values(), ids=ABSENT)
def test_api_that_llamactl_does_not_have_is_404_that_says_so(
    client: openai.OpenAI, call: Callable[[openai.OpenAI], object]
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        call(client)
    assert "llamactl has no /v1/" in caught.value.message


def test_batches_of_anthropics_client_are_404_that_says_so(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.batches.list()
    assert "llamactl has no /v1/messages/batches" in caught.value.message


def test_models_of_anthropics_client_come_in_pages(claude: anthropic.Anthropic) -> None:
    page = claude.models.list(limit=1)
    assert page.has_more
    models = list(page)
    assert [model.id for model in models] == ["demo", "idle"]
    assert {model.type for model in models} == {"model"}
    assert models[0].created_at.tzinfo is not None
    assert claude.models.retrieve("demo").display_name == "demo"
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.models.retrieve("nope")
    assert caught.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]


@pytest.mark.parametrize("path", ["api/tags", "api/chat", "api/version", "v1/api/chat"])
def test_ollamas_client_gets_one_sentence(stack: Stack, key: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    answer = requests.post(
        f"{stack.url}/{path}", json={"model": "idle"}, headers=headers, timeout=60
    )
    assert answer.status_code == 404
    assert f"{stack.url}/v1 " in answer.json()["error"]


def test_unknown_path_starts_nothing(stack: Stack, key: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.audio.speech.create(model="idle", input="x", voice="x")
    assert "the program of idle has no /v1/audio/speech" in caught.value.message
    headers = {"Authorization": f"Bearer {key}"}
    for path in ("props", "slots", "models", "lora-adapters", "metrics", "v1/models"):
        url = f"{stack.url}/llama-cpp/idle/{path}"
        assert requests.get(url, headers=headers, timeout=60).status_code == 503
    assert stack.instance("idle")["status"] == "stopped"


def test_running_llama_server_has_the_paths_of_the_table(stack: Stack, key: str) -> None:
    stack.chat("demo", key, max_tokens=1)
    headers = {"Authorization": f"Bearer {key}"}
    for path in sorted(SERVED_PATHS):
        answer = requests.post(
            stack.url + path, json={"model": "demo"}, headers=headers, timeout=60
        )
        assert answer.status_code != 404, (path, answer.text)
    newer = requests.post(
        f"{stack.url}/v1/newer", json={"model": "demo"}, headers=headers, timeout=60
    )
    # It should be the backend's own answer.
    assert (newer.status_code, newer.json()["error"]["message"]) == (404, "File Not Found")
