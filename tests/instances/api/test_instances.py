from __future__ import annotations

import json
from datetime import timedelta
from math import ceil
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client
from django.utils import timezone

from instances import lifecycle
from instances.models import Instance
from instances.states import ON_DEMAND, Status
from instances.wait_ready import wait_until_ready
from instances.wait_stopped import delete_when_stopped
from llamactl.config.schema import NodeConfig
from tests.support.observed import FAILURE, observe

pytestmark = pytest.mark.django_db
INSTANCES = "/api/v1/instances"


def send(api: Client, method: str, path: str, body: Any = None) -> Any:
    raw = b"" if body is None else json.dumps(body).encode()
    return api.generic(method, f"{INSTANCES}/{path}", raw, content_type="application/json")


def refusal(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


# -- create ---------------------------------------------------------------------------------------


def test_a_new_instance_is_stopped_and_has_its_defaults(api: Client) -> None:
    response = send(
        api,
        "POST",
        "x",
        {"backend_type": "llama_cpp", "backend_options": {"model": "/m.gguf", "ngl": 16}},
    )
    instance = Instance.objects.get()
    assert response.status_code == 201, response.content
    document = response.json()
    assert [found["field"] for found in document.pop("warnings")] == ["backend_options.model"]
    assert document == {
        "id": instance.pk,
        "name": "x",
        "status": "stopped",
        "created": int(instance.created_at.timestamp()),
        "options": {
            "backend_type": "llama_cpp",
            "backend_options": {"model": "/m.gguf", "gpu_layers": 16, "port": instance.port},
            "nodes": ["main"],
            "auto_restart": True,
            "max_restarts": 3,
            "restart_delay": 5,
            "on_demand_start": True,
            "idle_timeout": 0,
        },
        "desired_state": "stopped",
        "requested_by": "",
        "wish_cause": "",
        "queue": None,
        "last_used_at": None,
        "pid": None,
        "restarts": 0,
        "failure": None,
        "hold": None,
    }
    assert send(api, "GET", "x").json() == document
    assert api.get(INSTANCES).json() == [document]


@pytest.mark.parametrize(
    "raw", [b"", b" ", b"null", b'""', b'{"backend_type": ""}', b'{"backend_type": null}']
)
def test_a_body_that_says_nothing_makes_no_instance(api: Client, raw: bytes) -> None:
    response = api.generic("POST", f"{INSTANCES}/x", raw, content_type="")
    assert refusal(response) == (400, "invalid_request")
    assert not Instance.objects.exists()


def test_an_empty_object_asks_for_defaults(api: Client) -> None:
    response = send(api, "POST", "x", {})
    assert response.status_code == 201, response.content
    assert response.json()["options"]["backend_type"] == "llama_cpp"


def test_unknown_names_are_warnings_and_errors_with_strict(api: Client) -> None:
    options = {"idle_timout": 5, "Backend_Type": "vllm", "nonsense": 1}
    warnings = send(api, "POST", "x", options).json()["warnings"]
    assert [(found["field"], found["suggestion"]) for found in warnings] == [
        ("idle_timout", "did you mean idle_timeout?"),
        ("Backend_Type", "did you mean backend_type?"),
        ("nonsense", "options of the program go in backend_options"),
    ]
    assert send(api, "PUT", "x", {"idle_timout": 5}).json()["warnings"] == warnings[:1]
    assert send(api, "POST", "y?dry_run=true", options).json()["warnings"][-3:] == warnings
    for method, name in (("POST", "z"), ("PUT", "x")):
        response = send(api, method, f"{name}?strict=true", {"idle_timout": 5})
        assert refusal(response) == (400, "invalid_instance")
        assert "did you mean idle_timeout?" in response.json()["details"]
    assert not Instance.objects.filter(name="z").exists()
    # Thousands of names take neither long nor many bytes.
    response = send(api, "POST", "w", {f"n{number}": "x" for number in range(4_000)})
    assert len(response.json()["warnings"]) == 21


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("POST", "x?dryrun=true", "did you mean dry_run?"),
        ("PUT", "x?stric=true", "did you mean strict?"),
        ("PUT", "x?wait=5", "known: dry_run, strict"),
        ("DELETE", "x?force=true", "known: wait"),
        ("POST", "x/start?wiat=5", "did you mean wait?"),
        ("POST", "x/stop?dry_run=true", "known: none"),
        ("POST", "x?dry_run=true&dry_run=false", "must be given once"),
        ("POST", "x?=1", "known"),
        ("POST", "x?" + "a" * 5000, "known"),
    ],
)
def test_an_unknown_query_parameter_of_a_change_is_refused(
    api: Client, method: str, path: str, named: str
) -> None:
    send(api, "POST", "x", {"group": "g"})
    before = list(Instance.objects.values())
    response = send(api, method, path.replace("x?", "x?", 1), {"group": "other"})
    assert refusal(response) == (400, "invalid_parameter")
    assert named in response.json()["details"]
    assert len(response.content) < 500
    assert list(Instance.objects.values()) == before


def test_a_key_in_the_query_is_no_unknown_parameter(client: Client, management_key: str) -> None:
    path = f"{INSTANCES}/x?api_key={management_key}"
    assert client.post(path, {}, content_type="application/json").status_code == 201
    assert client.get(f"{INSTANCES}?api_key={management_key}&page=7").status_code == 200


def test_every_option_comes_back(api: Client) -> None:
    options = {
        "backend_type": "vllm",
        "backend_options": {"model": "org/m", "tensor_parallel_size": 2},
        "nodes": ["main"],
        "auto_restart": False,
        "max_restarts": 0,
        "restart_delay": 1,
        "on_demand_start": False,
        "idle_timeout": 30,
        "environment": {"HF_TOKEN": "ü"},
        "docker_enabled": False,
        "command_override": "/opt/vllm",
        "group": "gpu",
    }
    shown = send(api, "POST", "x", options).json()["options"]
    del shown["backend_options"]["port"]
    assert shown == options


def test_names_are_listed_in_order(api: Client) -> None:
    assert api.get(INSTANCES).json() == []
    for name in ("b", "C", "a", "a.1"):
        send(api, "POST", name, {})
    assert [instance["name"] for instance in api.get(INSTANCES).json()] == ["C", "a", "a.1", "b"]


def test_a_name_is_given_once(api: Client) -> None:
    send(api, "POST", "x", {})
    response = send(api, "POST", "x", {})
    assert refusal(response) == (409, "create_failed")
    assert response.json()["details"].startswith("instance with name x already exists")


def test_there_are_no_more_than_allowed(api: Client, override: Any) -> None:
    override(instances={"max_instances": 1})
    send(api, "POST", "x", {})
    response = send(api, "POST", "y", {})
    assert refusal(response) == (409, "max_instances_reached")
    assert "maximum number of instances (1) reached" in response.json()["details"]


@pytest.mark.parametrize(
    ("body", "status", "code", "named"),
    [
        ({"backend_type": "ollama"}, 400, "invalid_request", "backend_type"),
        ({"backend_type": 5}, 400, "invalid_request", "backend_type"),
        ({"backend_options": []}, 400, "invalid_request", "backend_options"),
        ({"backend_options": {"ctx_size": "many"}}, 400, "invalid_request", "ctx_size"),
        ({"backend_options": {"ctx_size": 10**30}}, 400, "invalid_request", "ctx_size"),
        ({"backend_options": {"port": 80}}, 400, "create_failed", "port 80"),
        ({"backend_options": {"port": 10**30}}, 400, "invalid_request", "port"),
        ({"backend_options": {"model": "\x01"}}, 400, "invalid_request", "model"),
        ({"auto_restart": "yes"}, 400, "invalid_request", "auto_restart"),
        ({"max_restarts": 1.5}, 400, "invalid_request", "max_restarts"),
        ({"max_restarts": 10**30}, 400, "invalid_instance", "max_restarts"),
        ({"nodes": "main"}, 400, "invalid_request", "nodes"),
        ({"nodes": ["nowhere"]}, 400, "invalid_instance", "nowhere"),
        ({"environment": {"A=B": "x"}}, 400, "invalid_instance", "environment"),
        ({"environment": {"A": 1}}, 400, "invalid_request", "environment.A"),
        ({"command_override": ["sh"]}, 400, "invalid_request", "command_override"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_made(
    api: Client, body: Any, status: int, code: str, named: str
) -> None:
    response = send(api, "POST", "x", body)
    assert refusal(response) == (status, code), response.content
    assert named in response.json()["details"]
    assert not Instance.objects.exists()
    # A change is refused as a creation is, and in the same words.
    send(api, "POST", "x", {})
    before = list(Instance.objects.values())
    assert send(api, "PUT", "x", body).json() == response.json()
    assert list(Instance.objects.values()) == before


def test_another_known_node_is_a_warning_of_a_change(api: Client, settings: Any) -> None:
    """As in the Go program an instance stays on its node, but not in silence."""
    send(api, "POST", "x", {})
    nodes = {"gpu": NodeConfig(address="http://192.0.2.1:8080")}
    settings.LLAMACTL = settings.LLAMACTL.model_copy(update={"nodes": nodes})
    (found,) = send(api, "PUT", "x", {"nodes": ["gpu"]}).json()["warnings"]
    assert found["field"] == "nodes"
    assert "stays on its node (main)" in found["message"]
    assert send(api, "GET", "x").json()["options"]["nodes"] == ["main"]
    assert "warnings" not in send(api, "PUT", "x", {"nodes": ["main"]}).json()
    assert refusal(send(api, "PUT", "x?strict=true", {"nodes": ["gpu"]})) == (
        400,
        "invalid_instance",
    )


HOSTILE_NAMES = [
    "my instance",
    "a" * 51,
    "a" * 100_000,
    ".hidden",
    "..",
    "a;b",
    "a\x00b",
    "a\n",
    "instänce",
    "😀",
    "a\u202eb",
    "\ufffd",
    "%",
    "{}",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: ascii(name[:20]))
def test_a_name_that_is_none_is_refused_everywhere(api: Client, name: str) -> None:
    path = quote(name, safe="")
    for method, suffix in [
        ("GET", ""),
        ("POST", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", "/start"),
        ("POST", "/stop"),
        ("POST", "/restart"),
        ("GET", "/logs"),
    ]:
        response = send(api, method, path + suffix, {})
        assert refusal(response) == (400, "invalid_instance_name"), (method, suffix)
        assert len(response.content) < 1000


def test_a_broken_spelling_of_a_name_is_refused(api: Client) -> None:
    for path in ("%FF%FE", "%C3", "%ED%A0%80", "a%00", "%2e%2e"):
        assert refusal(send(api, "GET", path)) == (400, "invalid_instance_name"), path
    # It should not reach another path by an encoded slash.
    assert send(api, "GET", "..%2Fnodes").status_code == 404


def test_a_name_may_have_periods_and_any_case(api: Client) -> None:
    for name in ("gemma-3.1", "A", "_x-", "a" * 50):
        assert send(api, "POST", name, {}).status_code == 201


# -- what is not there ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "suffix"),
    [
        ("GET", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", "/start"),
        ("POST", "/stop"),
        ("POST", "/restart"),
        ("POST", "/start?wait=5"),
        ("GET", "/logs"),
    ],
)
def test_an_unknown_instance_is_404(api: Client, method: str, suffix: str) -> None:
    response = send(api, method, f"nobody{suffix}", {})
    # It should keep the seed's code, though the status was 400 there.
    assert refusal(response) == (404, "invalid_instance")
    assert response.json()["details"].startswith("instance with name nobody not found")


# -- update ---------------------------------------------------------------------------------------


def test_an_update_replaces_all_options_and_keeps_the_port(api: Client) -> None:
    before = send(api, "POST", "x", {"idle_timeout": 5, "backend_options": {"model": "a"}}).json()
    after = send(api, "PUT", "x", {"backend_options": {"model": "b"}}).json()
    assert after["options"]["idle_timeout"] == 0
    assert after["options"]["backend_options"] == {
        "model": "b",
        "port": before["options"]["backend_options"]["port"],
    }
    assert after["id"] == before["id"]


def test_options_of_a_get_can_be_put_back(api: Client) -> None:
    send(api, "POST", "x", {"backend_options": {"model": "a"}, "limits": {"nice": 5}})
    send(api, "POST", "x/start")
    observe("x", Status.RUNNING, pid=4242)
    shown = send(api, "GET", "x").json()
    for document in (shown["options"], shown):
        answer = send(api, "PUT", "x", document).json()
        assert {field["field"] for field in answer.pop("warnings")} == {"backend_options.model"}
        assert answer == shown | {"changed": False, "restarted": False}
    assert Instance.objects.get().generation == 1


def test_an_update_says_whether_it_restarts(api: Client) -> None:
    shown = send(api, "POST", "x", {"backend_options": {"model": "a"}}).json()["options"]
    send(api, "POST", "x/start")
    observe("x", Status.RUNNING, pid=4242)
    quiet = send(api, "PUT", "x", shown | {"idle_timeout": 7}).json()
    assert (quiet["changed"], quiet["restarted"], quiet["status"]) == (True, False, "running")
    loud = send(api, "PUT", "x", shown | {"environment": {"A": "1"}}).json()
    assert (loud["changed"], loud["restarted"]) == (True, True)


@pytest.mark.parametrize(
    "document",
    [
        {"options": {"group": "a"}, "idle_timeout": 5},
        {"options": []},
        {"options": None},
        {"options": "x"},
    ],
)
def test_options_inside_and_outside_of_an_instance_are_refused(
    api: Client, document: dict[str, object]
) -> None:
    assert refusal(send(api, "POST", "x", document)) == (400, "invalid_request")
    assert not Instance.objects.exists()


def test_an_empty_update_is_refused_rather_than_a_reset(api: Client) -> None:
    send(api, "POST", "x", {"idle_timeout": 5})
    assert refusal(send(api, "PUT", "x")) == (400, "invalid_request")
    assert send(api, "GET", "x").json()["options"]["idle_timeout"] == 5


def test_a_refused_update_changes_nothing(api: Client) -> None:
    before = send(api, "POST", "x", {"idle_timeout": 5}).json()
    assert send(api, "PUT", "x", {"backend_options": {"port": 1}}).status_code == 400
    assert send(api, "PUT", "x", {"max_restarts": []}).status_code == 400
    assert send(api, "GET", "x").json() == before


# -- start, stop, restart, delete -----------------------------------------------------------------


def test_start_responds_at_once_with_the_status_starting(api: Client) -> None:
    send(api, "POST", "x", {})
    response = send(api, "POST", "x/start")
    assert response.status_code == 200
    assert response.json()["status"] == "starting"
    assert response.json()["desired_state"] == "running"


def test_start_and_stop_are_idempotent(api: Client) -> None:
    send(api, "POST", "x", {})
    for _ in range(2):
        assert send(api, "POST", "x/start").status_code == 200
    assert Instance.objects.get().generation == 1
    for _ in range(2):
        assert send(api, "POST", "x/stop").json()["status"] == "stopped"


def test_restart_asks_for_a_new_process(api: Client) -> None:
    send(api, "POST", "x", {})
    send(api, "POST", "x/start")
    observe("x", Status.RUNNING, pid=4242)
    response = send(api, "POST", "x/restart")
    shown = response.json()
    # The process that is about to end should not look like the one that was asked for.
    assert (response.status_code, shown["status"], shown["pid"]) == (200, "starting", None)
    assert send(api, "GET", "x").json() == shown
    assert Instance.objects.get().generation == 2


def test_wait_for_a_running_instance_responds_at_once(api: Client) -> None:
    send(api, "POST", "x", {})
    send(api, "POST", "x/start")
    observe("x", Status.RUNNING)
    assert send(api, "POST", "x/start?wait=60").json()["status"] == "running"


def test_wait_is_bounded_by_the_parameter_and_by_the_config(api: Client, override: Any) -> None:
    send(api, "POST", "x", {})
    override(instances={"on_demand_start_timeout": 0.3})
    for wait in ("0", "0.1", "1000"):
        response = send(api, "POST", f"x/start?wait={wait}")
        assert refusal(response) == (503, "backend_start_failed")
        assert response.json()["reason"] == "timeout"
        assert int(response["Retry-After"]) > 0


def test_wait_for_a_failed_start_responds_with_the_reason(api: Client, monkeypatch: Any) -> None:
    send(api, "POST", "x", {})

    def fail(seconds: float) -> None:
        observe("x", Status.FAILED, failure=FAILURE)

    monkeypatch.setitem(wait_until_ready.__kwdefaults__, "sleep", fail)
    response = send(api, "POST", "x/start?wait=60")
    assert refusal(response) == (502, "backend_start_failed")
    assert response.json()["exit_code"] == 3
    assert response.json()["log_tail"] == FAILURE["log_tail"]


@pytest.mark.parametrize(
    "wait", ["", "x", "-1", "nan", "inf", "1e99", "+1", "1_0", "%00", "9" * 400, "%D9%A3", "true"]
)
@pytest.mark.parametrize("operation", ["start", "restart"])
def test_a_wait_that_is_no_number_is_refused_and_nothing_starts(
    api: Client, operation: str, wait: str
) -> None:
    send(api, "POST", "x", {})
    response = send(api, "POST", f"x/{operation}?wait={wait}")
    assert refusal(response) == (400, "invalid_parameter")
    assert Instance.objects.get().generation == 0


def test_a_failed_instance_shows_its_failure_until_it_is_started_again(api: Client) -> None:
    send(api, "POST", "x", {})
    send(api, "POST", "x/start")
    observe("x", Status.FAILED, failure=FAILURE)
    shown = send(api, "GET", "x").json()
    assert (shown["status"], shown["failure"]) == ("failed", FAILURE)
    shown = send(api, "POST", "x/start").json()
    assert (shown["status"], shown["failure"]) == ("starting", None)


def test_hold_after_a_stop_is_shown_until_the_next_start(api: Client) -> None:
    send(api, "POST", "x", {})
    stopped = send(api, "POST", "x/stop").json()
    until = Instance.objects.get().stop_hold_until
    assert until is not None
    # A second begun counts: a request at this time should not be refused any more.
    assert stopped["hold"] == {"until": ceil(until.timestamp()), "reason": "stopped_by_operator"}
    assert api.get(INSTANCES).json()[0]["hold"] == stopped["hold"]
    assert send(api, "POST", "x/start").json()["hold"] is None


def test_hold_after_a_failed_activation_is_shown(api: Client) -> None:
    send(api, "POST", "x", {})
    lifecycle.request_start("x", cause=ON_DEMAND)
    until = timezone.now() + timedelta(seconds=200)
    observe("x", Status.FAILED, failure=FAILURE, failure_hold_until=until)
    hold = {"until": ceil(until.timestamp()), "reason": "backend_start_failed"}
    assert send(api, "GET", "x").json()["hold"] == hold
    send(api, "PUT", "x", {})
    assert send(api, "GET", "x").json()["hold"] is None


def test_instance_that_no_request_starts_has_no_hold(api: Client) -> None:
    send(api, "POST", "x", {"on_demand_start": False})
    assert send(api, "POST", "x/stop").json()["hold"] is None


def stopping(api: Client) -> None:
    send(api, "POST", "x", {})
    send(api, "POST", "x/start")
    observe("x", Status.RUNNING, pid=4242)
    send(api, "POST", "x/stop")


@pytest.mark.parametrize("query", ["", "?wait=60"])
def test_delete_right_after_a_stop_waits_for_its_end(
    api: Client, monkeypatch: Any, query: str
) -> None:
    stopping(api)

    def end(seconds: float) -> None:
        observe("x", Status.STOPPED, pid=None)

    monkeypatch.setitem(delete_when_stopped.__kwdefaults__, "sleep", end)
    assert send(api, "DELETE", f"x{query}").status_code == 204
    assert not Instance.objects.exists()


def test_delete_during_a_long_stop_says_that_it_is_stopping(api: Client) -> None:
    stopping(api)
    response = send(api, "DELETE", "x?wait=0.1")
    assert refusal(response) == (409, "delete_failed")
    assert "is stopping" in response.json()["details"]
    assert int(response["Retry-After"]) > 0
    assert refusal(send(api, "DELETE", "x?wait=soon")) == (400, "invalid_parameter")
    assert Instance.objects.exists()


def test_delete_takes_a_stopped_instance_and_no_other(api: Client) -> None:
    send(api, "POST", "x", {})
    send(api, "POST", "x/start")
    observe("x", Status.RUNNING, pid=4242)
    assert refusal(send(api, "DELETE", "x")) == (409, "delete_failed")
    send(api, "POST", "x/stop")
    assert send(api, "GET", "x").json()["status"] == "shutting_down"
    observe("x", Status.STOPPED, pid=None)
    response = send(api, "DELETE", "x")
    assert (response.status_code, response.content) == (204, b"")
    assert send(api, "GET", "x").status_code == 404


def test_a_list_is_one_query(api: Client, django_assert_num_queries: Any) -> None:
    for number in range(5):
        lifecycle.create(f"x{number}", {}, cause="test")
    with django_assert_num_queries(1):
        api.get(INSTANCES)


def test_queued_instance_shows_place_and_reason(api: Client, override: Any) -> None:
    send(api, "POST", "x", {})
    api.post("/api/v1/instances/x/start")
    queue = {"place": 1, "length": 2, "reason": "max_running_instances (1) is reached"}
    Instance.objects.update(queue=queue)
    shown = api.get("/api/v1/instances/x").json()
    assert (shown["status"], shown["queue"], shown["requested_by"]) == ("starting", queue, "api")
    api.post("/api/v1/instances/x/stop")
    # It does not wait any more, though its node has yet to see that.
    assert api.get("/api/v1/instances/x").json()["queue"] is None


def test_start_beyond_the_limits_is_the_seeds_conflict(api: Client, override: Any) -> None:
    override(instances={"max_running_instances": 1})
    send(api, "POST", "x", {"pinned": True})
    send(api, "POST", "y", {})
    assert api.post("/api/v1/instances/x/start").status_code == 200
    refused = api.post("/api/v1/instances/y/start")
    assert (refused.status_code, refused.json()["error"]) == (409, "max_instances_reached")
    assert "waiting for x" in refused.json()["details"]
    assert api.get("/api/v1/instances/y").json()["desired_state"] == "stopped"
