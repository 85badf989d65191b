"""Hostile documents: nothing breaks, and nothing gets onto a command line."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from instances import lifecycle
from instances.backends.base import Backend
from instances.backends.registry import BACKENDS, backend_for
from instances.backends.values import MAX_VALUE_BYTES
from instances.launch import build_launch
from instances.models import Instance
from keys.models import InferenceKey
from llamactl.config import current
from tests.instances.backends.options_strategies import options_of

pytestmark = pytest.mark.django_db

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

TEXTS = st.text(st.characters(), max_size=40) | st.sampled_from(
    [
        "",
        "a\x00b",
        "a\nb",
        "\x1b[31m",
        "\ud800",
        "\udfff\ud800",
        "\u202egnp.exe",
        "../../etc/passwd",
        "--api-key",
        "--",
        "-m",
        "--port=1",
        "$(reboot)",
        "`reboot`; reboot | reboot & reboot > /dev/sda",
        "%s%n{0}{{x}}",
        "9" * 5000,
        "١٢٣",
        "x" * (MAX_VALUE_BYTES + 1),
    ]
)
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([2**31, 2**63, -(2**63) - 1, 2**64, 10**4000, -0.0, 1e308])
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)

bounded = settings(
    max_examples=60,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "wake_node", lambda node: None)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Options of an instance: some as they should be, some as they should not."""
    backend = draw(st.sampled_from(list(BACKENDS.values())))
    known = st.sampled_from([*backend.table.flags, "port", "host", "extra_args"])
    options: Any = draw(
        options_of(backend)
        | st.dictionaries(known | TEXTS, VALUES, max_size=4)
        | st.tuples(options_of(backend), st.dictionaries(known, VALUES, max_size=1)).map(
            lambda both: {**both[0], **both[1]}
        )
        | VALUES
    )
    rest = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "environment": st.dictionaries(TEXTS, TEXTS, max_size=3)
                | st.dictionaries(st.sampled_from(["A", "PATH", "LD_PRELOAD"]), TEXTS)
                | VALUES,
                "nodes": st.lists(TEXTS, max_size=2) | VALUES,
                "max_restarts": VALUES,
                "restart_delay": VALUES,
                "idle_timeout": VALUES,
                "auto_restart": VALUES,
                "on_demand_start": VALUES,
                "docker_enabled": VALUES,
                "command_override": VALUES,
                "group": VALUES,
            },
        )
    )
    said = draw(st.sampled_from([backend.type, backend.type, None]) | VALUES)
    return {"backend_type": said, "backend_options": options, **rest}


def send(client: Client, method: str, path: str, document: object) -> Any:
    # As JavaScript would write it, lone surrogates and NaN included.
    return client.generic(method, path, json.dumps(document), content_type="application/json")


def check_refusal(response: Any) -> None:
    """It should name the wrong field, and repeat no more of the value than fits a line or two."""
    assert response.status_code in (400, 409, 413), response.content[:500]
    assert set(response.json()) == {"error", "details"}
    assert len(response.content) < 2000


def check_launch(instance: Instance) -> None:
    """Check the command line: its words are executable, and match the options."""
    options = instance.parsed_options
    backend = backend_for(options.backend_type)
    launch = build_launch(
        instance_name=instance.name,
        options=options,
        config=backend.config_section(current()),
        host="127.0.0.1",
        port=instance.port,
        api_key="llamactl-derived-secret",
        which=lambda *_, **__: "/bin/echo",
    )
    for word in launch.argv:
        assert not UNPRINTABLE.search(word)
        assert len(word.encode()) < 131_072
        assert "llamactl-derived-secret" not in word
    for name, value in launch.environment.items():
        assert re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII)
        assert "\x00" not in value
        value.encode()  # raises for half of a surrogate pair
    check_inverse(backend, options.backend_options)


def check_inverse(backend: Backend, options: dict[str, object]) -> None:
    words = backend.build_args(options)
    command = shlex.join([*backend.programs.commands[0], *words])
    if len(command) < 60_000:
        assert backend.parse_command(command).backend_options == backend.normalise(options)


@bounded
@given(document=documents())
def test_whatever_is_accepted_as_an_instance_can_be_executed_as_it_is_said(
    api: Client, document: dict[str, Any]
) -> None:
    Instance.objects.all().delete()
    response = send(api, "POST", "/api/v1/instances/x", document)
    event(f"status {response.status_code}")
    if response.status_code != 201:
        check_refusal(response)
        assert not Instance.objects.exists()
        return
    instance = Instance.objects.get()
    check_launch(instance)
    # It should show the stored document, and accept the shown one.
    shown = send(api, "GET", "/api/v1/instances/x", None).json()["options"]
    again = send(api, "PUT", "/api/v1/instances/x", shown)
    assert again.status_code == 200, again.content
    assert again.json()["options"] == shown
    assert send(api, "DELETE", "/api/v1/instances/x", None).status_code == 204


@bounded
@given(document=documents())
def test_an_update_is_taken_whole_or_not_at_all(api: Client, document: dict[str, Any]) -> None:
    if not Instance.objects.exists():
        lifecycle.create("x", {"backend_options": {"model": "m"}}, cause="test")
    before = send(api, "GET", "/api/v1/instances/x", None).json()["options"]
    response = send(api, "PUT", "/api/v1/instances/x", document)
    if response.status_code == 200:
        check_launch(Instance.objects.get())
        return
    check_refusal(response)
    assert send(api, "GET", "/api/v1/instances/x", None).json()["options"] == before


@bounded
@given(document=VALUES)
@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/instances/x",
        "/api/v1/auth/keys",
        "/api/v1/backends/llama-cpp/parse-command",
        "/api/v1/backends/vllm/parse-command",
        "/api/v1/backends/mlx/parse-command",
    ],
)
def test_any_json_at_all_is_answered(api: Client, path: str, document: object) -> None:
    response = send(api, "POST", path, document)
    if response.status_code == 201:
        Instance.objects.all().delete()
    else:
        check_refusal(response)


@bounded
@given(
    document=st.fixed_dictionaries(
        {"name": TEXTS, "permission_mode": st.sampled_from(["allow_all", "per_instance"]) | VALUES},
        optional={
            "instance_ids": st.lists(NUMBERS, max_size=5) | VALUES,
            "expires_at": NUMBERS | VALUES,
            "id": VALUES,
            "key": VALUES,
            "user_id": VALUES,
        },
    )
)
def test_a_key_is_made_as_asked_or_not_at_all(api: Client, document: dict[str, Any]) -> None:
    before = InferenceKey.objects.count()
    response = send(api, "POST", "/api/v1/auth/keys", document)
    if response.status_code != 201:
        check_refusal(response)
        assert InferenceKey.objects.count() == before
        return
    made = response.json()
    assert made["name"] == document["name"]
    # It should choose the read-only fields itself.
    assert made["user_id"] == "system"
    assert re.fullmatch("llamactl-[0-9a-f]{64}", made["key"])


@bounded
@given(command=st.lists(TEXTS, max_size=6).map(" ".join) | TEXTS)
@pytest.mark.parametrize("backend", list(BACKENDS.values()), ids=list(BACKENDS))
def test_any_text_is_a_command_or_is_refused(api: Client, backend: Backend, command: str) -> None:
    command = f"{shlex.join(backend.programs.commands[0])} {command}"
    path = f"/api/v1/backends/{backend.config_name}/parse-command"
    response = send(api, "POST", path, {"command": command})
    if response.status_code != 200:
        check_refusal(response)
        return
    parsed = response.json()
    parsed["backend_options"].pop("port", None)
    created = send(api, "POST", "/api/v1/instances/x", parsed)
    if created.status_code == 201:
        check_launch(Instance.objects.get())
        Instance.objects.all().delete()
    else:
        check_refusal(created)


@bounded
@given(name=TEXTS)
@pytest.mark.parametrize("ending", ["", "/start", "/logs", "/stop"])
def test_any_name_is_refused_or_unknown(api: Client, name: str, ending: str) -> None:
    path = f"/api/v1/instances/{quote(name.encode('utf-8', 'surrogatepass'), safe='')}{ending}"
    response: Any = api.get(path) if ending in ("", "/logs") else api.post(path)
    assert response.status_code in (200, 400, 404, 405)
    if response.status_code != 200:
        assert response.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"backend_type": "vllm", "backend_type": "llama_cpp"}',
        b'{"backend_options": {"model": "a", "model": "b\\u0000"}}',
        b'{"backend_options": {"ctx_size": 1, "ctx_size": "x"}}',
    ],
)
def test_of_a_key_that_is_there_twice_the_last_counts(api: Client, body: bytes) -> None:
    response: Any = api.generic("POST", "/api/v1/instances/x", body)
    if response.status_code == 201:
        assert response.json()["options"]["backend_type"] == "llama_cpp"
    else:
        check_refusal(response)


def test_ten_megabytes_of_options_are_refused(api: Client) -> None:
    document = {"backend_options": {"model": "m", "lora": ["x" * 100_000] * 100}}
    response = send(api, "POST", "/api/v1/instances/x", document)
    check_refusal(response)
    assert response.status_code == 413


@pytest.mark.parametrize("depth", [25, 40, 500, 100_000])
def test_nested_options_are_taken_to_a_depth_and_refused_below(api: Client, depth: int) -> None:
    body = b'{"backend_options": {"chat_template_kwargs": ' + b"[" * depth + b"]" * depth + b"}}"
    response: Any = api.generic("POST", "/api/v1/instances/x", body)
    if depth == 25:
        assert response.status_code == 201
        check_launch(Instance.objects.get())
    else:
        check_refusal(response)
