"""The admin's pages of the instances, as an operator's browser asks for them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from instances import lifecycle
from instances.admin.actions import CONTROLS
from instances.admin.form import InstanceForm
from instances.errors import InstanceNotFound
from instances.logs.files import log_path
from instances.models import Instance, StatusChange
from instances.states import ON_DEMAND, DesiredState, Status
from keys import issuing
from llamactl.config import current
from nodes.models import Node

pytestmark = pytest.mark.django_db

LIST = "/admin/instances/instance/"
ADD = f"{LIST}add/"
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202egnp\x00<img src=x onerror=alert(2)>"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


@pytest.fixture
def viewer() -> Client:
    """Staff that may look at everything and change nothing."""
    user = User.objects.create_user("vera", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def stranger() -> Client:
    """Staff without any permission."""
    client = Client()
    client.force_login(User.objects.create_user("sven", is_staff=True))
    return client


def create(name: str = "gemma", **document: Any) -> Instance:
    document.setdefault("backend_options", {"model": f"/models/{name}.gguf"})
    return lifecycle.create(name, {"backend_type": "llama_cpp", **document}, cause="test")


def observe(instance: Instance, **columns: object) -> None:
    """Write what a supervisor would have observed."""
    Instance.objects.filter(pk=instance.pk).update(**columns)


def run(instance: Instance) -> None:
    lifecycle.request_start(instance.name, cause="test")
    observe(instance, status=Status.RUNNING, observed_generation=1, pid=4711)


def page(instance: Instance, name: str = "change") -> str:
    return f"{LIST}{instance.pk}/{name}/"


def texts(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def form_data(client: Client, url: str, **changes: object) -> dict[str, Any]:
    """What a browser would send back for the form at ``url``, with some fields changed.

    The models of these tests are not on disk, and their operator knows.
    """
    form = InstanceForm() if url == ADD else client.get(url).context["adminform"].form
    values = {name: form[name].value() for name in form.fields}
    values |= {"save_anyway": "on", **changes}
    return {
        name: value for name, value in values.items() if value is not None and value is not False
    }


# -- the list -------------------------------------------------------------------------------------


def test_list_shows_status_node_and_number_of_keys(operator: Client) -> None:
    instance = create()
    run(instance)
    issuing.issue(name="all", permission_mode="allow_all")
    issuing.issue(name="one", permission_mode="per_instance", instance_ids=[instance.pk])
    other = create("other")
    issuing.issue(name="other", permission_mode="per_instance", instance_ids=[other.pk])
    response = operator.get(LIST)
    rows = {row.name: row for row in response.context["cl"].result_list}
    assert rows["gemma"].opened_by == 2
    text = response.content.decode()
    for expected in ("gemma.gguf", 'data-status="running"', "llama.cpp", str(instance.port)):
        assert expected in text


def test_list_makes_no_query_per_row(operator: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(30):
        instance = create(f"i{number}")
        issuing.issue(name="k", permission_mode="per_instance", instance_ids=[instance.pk])
    # session, user, two counts, the rows, the nodes of the filter and of the banner
    with django_assert_max_num_queries(7):
        response = operator.get(LIST)
    assert len(response.context["cl"].result_list) == 30


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("status=running", {"runs"}),
        ("status=starting", {"asked"}),
        ("status=stopped", {"rests"}),
        ("status=nonsense", {"runs", "asked", "rests"}),
        ("backend=mlx_lm", {"rests"}),
        ("q=RUNS.gguf", {"runs"}),
        ("q=owner/repo", {"rests"}),
        ("q=biggest", {"asked"}),
        ("q=nothing", set()),
    ],
)
def test_filters_and_search_find(operator: Client, query: str, names: set[str]) -> None:
    run(create("runs"))
    create("asked", group="biggest")
    lifecycle.request_start("asked", cause="test")
    create("rests", backend_type="mlx_lm", backend_options={"model": "owner/repo"})
    response = operator.get(f"{LIST}?{query}")
    assert {row.name for row in response.context["cl"].result_list} == names


def test_row_button_starts_the_instance_and_keeps_the_filter(operator: Client) -> None:
    instance = create()
    url = f"{LIST}?status=stopped"
    response = operator.post(url, {"control": f"start:{instance.pk}"})
    assert (response.status_code, response["Location"]) == (302, url)
    instance.refresh_from_db()
    assert instance.desired_state == DesiredState.RUNNING
    assert "Start requested for 1: gemma." in texts(operator.get(url))
    assert LogEntry.objects.get().user.username == "olga"


def test_action_reports_changes_and_refusals(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is asked, one runs already, one was deleted by somebody else meanwhile."""
    rests, runs, gone = create("rests"), create("runs"), create("gone")
    run(runs)

    def request(name: str, *, cause: str) -> Instance:
        if name == "gone":
            raise InstanceNotFound(name)
        return lifecycle.request_start(name, cause=cause)

    monkeypatch.setitem(CONTROLS, "start", replace(CONTROLS["start"], request=request))
    response = operator.post(
        LIST,
        {"action": "start_selected", "_selected_action": [rests.pk, runs.pk, gone.pk]},
        follow=True,
    )
    said = "\n".join(texts(response))
    assert "Start requested for 1: rests." in said
    assert "Running or starting already 1: runs." in said
    assert "gone: instance with name gone not found" in said


def test_stop_and_restart_of_the_selected_change_the_desired_state(operator: Client) -> None:
    instance = create()
    run(instance)
    for action in ("restart_selected", "stop_selected"):
        operator.post(LIST, {"action": action, "_selected_action": [instance.pk]})
    instance.refresh_from_db()
    assert (instance.generation, instance.desired_state) == (2, DesiredState.STOPPED)


def test_start_on_a_node_without_a_worker_warns_of_the_delay(
    operator: Client,
) -> None:
    instance = create()
    response = operator.post(page(instance, "control"), {"control": "start"}, follow=True)
    assert any("no heartbeat lately" in text for text in texts(response))
    Node.objects.update(heartbeat_at=timezone.now())
    response = operator.post(page(instance, "control"), {"control": "restart"}, follow=True)
    assert texts(response) == ["Restart requested for 1: gemma."]


# -- permissions -----------------------------------------------------------------------------------


def test_state_changes_by_get_only_never(operator: Client) -> None:
    instance = create()
    assert operator.get(f"{page(instance, 'control')}?control=start").status_code == 405
    assert operator.get(f"{LIST}?control=start:{instance.pk}").status_code in (200, 302)
    assert operator.get(f"{LIST}parse-command/").status_code == 405
    instance.refresh_from_db()
    assert instance.desired_state == DesiredState.STOPPED


def test_state_changes_need_the_csrf_token() -> None:
    instance = create()
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("olga"))
    for url, data in (
        (LIST, {"control": f"start:{instance.pk}"}),
        (page(instance, "control"), {"control": "start"}),
        (f"{LIST}parse-command/", {"command": "llama-server"}),
        (page(instance, "delete"), {"post": "yes"}),
    ):
        assert client.post(url, data).status_code == 403, url
    instance.refresh_from_db()
    assert instance.desired_state == DesiredState.STOPPED


def test_viewer_sees_everything_but_can_not_touch_it(viewer: Client) -> None:
    instance = create()
    listed = viewer.get(LIST)
    assert listed.status_code == 200
    assert 'name="control"' not in listed.content.decode()
    assert 'name="control"' not in viewer.get(page(instance)).content.decode()
    assert viewer.get(page(instance, "now")).status_code == 200
    assert viewer.get(f"{LIST}statuses/?ids={instance.pk}").status_code == 200
    for url, data in (
        (LIST, {"control": f"start:{instance.pk}"}),
        (page(instance, "control"), {"control": "start"}),
        (page(instance), {}),
        (page(instance, "delete"), {"post": "yes"}),
        (ADD, {"name": "x"}),
        (f"{LIST}parse-command/", {"command": "llama-server"}),
    ):
        assert viewer.post(url, data).status_code == 403, url
    viewer.post(LIST, {"action": "start_selected", "_selected_action": [instance.pk]})
    viewer.post(LIST, {"action": "delete_selected", "_selected_action": [instance.pk], "post": "1"})
    instance.refresh_from_db()
    assert instance.desired_state == DesiredState.STOPPED


@pytest.mark.parametrize("path", ["", "{pk}/change/", "{pk}/now/", "statuses/", "add/"])
def test_staff_without_permission_and_anonymous_see_nothing(stranger: Client, path: str) -> None:
    url = LIST + path.format(pk=create().pk)
    assert stranger.get(url).status_code == 403
    response = Client().get(url)
    assert response.status_code == 302
    assert response["Location"].startswith("/admin/login/")


def test_viewer_does_not_see_secrets(viewer: Client) -> None:
    instance = create(
        backend_options={"model": "/m.gguf", "extra_args": {"ssl-key-password": "s3cret"}},
        environment={"HF_TOKEN": "hf_s3cret", "OMP_NUM_THREADS": "4"},
    )
    text = viewer.get(page(instance)).content.decode()
    assert "s3cret" not in text
    assert "OMP_NUM_THREADS" in text


SECRETS: dict[str, Any] = {
    "backend_options": {
        "model": "https://me:s3cret@host/m.gguf",
        "hf_token": "s3cret",
        "chat_template_kwargs": '{"password": "s3cret"}',
        "extra_args": {
            "authz": "s3cret",
            "header": "Authorization: s3cret",
            "list": ["x", "s3cret"],
            "switch": True,
            "one": 5,
        },
    },
    "environment": {
        "DB_PASSPHRASE": "s3cret",
        "MY_PWD": "s3cret",
        "AUTHZ": "s3cret",
        "DATABASE_URL": "postgres://me:s3cret@host/db",
        "LD_PRELOAD": "s3cret",
        "PLAIN": "s3cret",
    },
}


def test_viewer_finds_no_secret_on_any_page(operator: Client, viewer: Client) -> None:
    instance = create(**SECRETS)
    changed = form_data(operator, page(instance), environment="DB_PASSPHRASE=s3cret2", group="g")
    operator.post(page(instance), changed)
    assert LogEntry.objects.exists()
    for url in (
        LIST,
        page(instance),
        page(instance, "now"),
        page(instance, "history"),
        f"{LIST}?q=gemma",
        "/admin/",
        "/admin/search/?s=gemma&extended=1",
        "/admin/autocomplete/?app_label=keys&model_name=inferencekey&field_name=instances&term=g",
    ):
        assert "s3cret" not in viewer.get(url).content.decode(), url
    text = viewer.get(page(instance)).content.decode()
    for name in ("DB_PASSPHRASE", "authz", "switch", "m.gguf"):
        assert name in text


def test_viewer_can_not_guess_an_option_by_a_search(operator: Client, viewer: Client) -> None:
    create(backend_options={"model": "https://me:s3cret@host/m.gguf"})
    for query, client, count in (
        ("s3cret", operator, 1),
        ("s3cret", viewer, 0),
        ("m.gguf", viewer, 0),
        ("gemm", viewer, 1),
    ):
        assert len(client.get(f"{LIST}?q={query}").context["cl"].result_list) == count, query


def test_user_who_may_only_delete_finds_no_secret(client: Client) -> None:
    user = User.objects.create_user("dora", is_staff=True)
    codes = ("view_instance", "delete_instance", "add_instance")
    user.user_permissions.set(Permission.objects.filter(codename__in=codes))
    client.force_login(user)
    instance = create(**SECRETS)
    data = {"action": "delete_selected", "_selected_action": [instance.pk]}
    for response in (
        client.get(page(instance)),
        client.get(page(instance, "delete")),
        client.post(LIST, data),
    ):
        assert response.status_code == 200
        assert "s3cret" not in response.content.decode()


# -- the form -------------------------------------------------------------------------------------


def test_add_makes_a_stopped_instance_or_starts_it(operator: Client) -> None:
    data = form_data(
        operator,
        ADD,
        name="gemma",
        model="/models/gemma.gguf",
        ctx_size="4096",
        gpu_layers="0",
        further_options='{"mlock": true}',
        environment="CUDA_VISIBLE_DEVICES=0,1",
        group="small",
        idle_timeout="15",
        start_now="",
    )
    response = operator.post(ADD, data)
    instance = Instance.objects.get()
    assert response["Location"] == page(instance)
    assert instance.options["backend_options"] == {
        "model": "/models/gemma.gguf",
        "ctx_size": 4096,
        "gpu_layers": 0,
        "mlock": True,
    }
    assert instance.options["environment"] == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert (instance.options["group"], instance.options["idle_timeout"]) == ("small", 15)
    assert instance.desired_state == DesiredState.STOPPED

    operator.post(ADD, {**data, "name": "second", "start_now": "on"})
    assert Instance.objects.get(name="second").desired_state == DesiredState.RUNNING


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "taken"}, "name"),
        ({"ctx_size": "lots"}, "ctx_size"),
        ({"port": "80"}, "port"),
        ({"port": "many"}, "port"),
        ({"further_options": "{"}, "further_options"),
        ({"further_options": '{"mlock": "perhaps"}'}, "further_options"),
        ({"further_options": '{"ctx_size": 1}', "ctx_size": "2"}, "further_options"),
        ({"further_options": '{"extra_args": 3}'}, "further_options"),
        ({"further_options": '{"chat_template": "\\ud800"}'}, "further_options"),
        ({"further_options": '{"\\ud800": 1}'}, "__all__"),
        ({"further_options": '{"a": ' * 40 + "1" + "}" * 40}, "__all__"),
        ({"environment": 'A="\\ud800"'}, "environment"),
        ({"request": '{"set": {"a": "\\ud800"}}'}, "request"),
        ({"request": '{"set": {"a": "\\u0000"}}'}, "request"),
        ({"environment": "A"}, "environment"),
        ({"environment": "A-B=1"}, "environment"),
        ({"max_restarts": "-1"}, "max_restarts"),
        ({"max_restarts": str(10**12)}, "max_restarts"),
        ({"backend_type": "nope"}, "backend_type"),
        ({"command_override": "a\x01b"}, "command_override"),
    ],
)
def test_error_stands_next_to_its_field_and_nothing_is_created(
    operator: Client, changes: dict[str, str], field: str
) -> None:
    create("taken")
    response = operator.post(ADD, form_data(operator, ADD, **{"name": "x", **changes}))
    assert response.status_code == 200
    assert list(response.context["adminform"].form.errors) == [field]
    assert Instance.objects.count() == 1


def test_limit_of_instances_stands_at_the_top(operator: Client, override: Any) -> None:
    override(instances={"max_instances": 0})
    response = operator.post(ADD, form_data(operator, ADD, name="x"))
    assert "maximum number of instances" in response.content.decode()
    assert "__all__" in response.context["adminform"].form.errors


def test_refusal_after_the_row_was_made_takes_the_row_back(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, *, cause: str) -> Instance:
        raise InstanceNotFound(name)

    monkeypatch.setattr(lifecycle, "request_start", refuse)
    response = operator.post(ADD, form_data(operator, ADD, name="x", start_now="on"))
    assert response.status_code == 200
    assert not Instance.objects.exists()
    assert not LogEntry.objects.exists()


def test_edit_keeps_every_option_it_does_not_show(operator: Client) -> None:
    instance = create(
        backend_options={
            "model": "/m.gguf",
            "lora": ["a", "b"],
            "extra_args": {"new-flag": "\u202ex"},
        },
        environment={"A": "one\ntwo"},
        docker_enabled=False,
        command_override="/opt/llama-server",
        group="shown with its \u202edirection mark escaped",
    )
    before = instance.options
    operator.post(page(instance), form_data(operator, page(instance), ctx_size="8192"))
    instance.refresh_from_db()
    expected = {**before, "backend_options": {**before["backend_options"], "ctx_size": 8192}}
    assert instance.options == expected


def test_save_without_a_change_restarts_nothing(operator: Client) -> None:
    instance = create()
    run(instance)
    operator.post(page(instance), form_data(operator, page(instance)))
    instance.refresh_from_db()
    assert instance.generation == 1
    operator.post(page(instance), form_data(operator, page(instance), ctx_size="2048"))
    instance.refresh_from_db()
    assert instance.generation == 2


def test_edit_after_a_concurrent_change_is_refused(operator: Client) -> None:
    instance = create()
    data = form_data(operator, page(instance), ctx_size="2048")
    lifecycle.update("gemma", {**instance.options, "group": "theirs"}, cause="api")
    response = operator.post(page(instance), data)
    assert "Another user changed this instance" in response.content.decode()
    instance.refresh_from_db()
    assert instance.options["group"] == "theirs"
    assert "ctx_size" not in instance.options["backend_options"]


def test_refused_edit_shows_the_error_and_changes_nothing(operator: Client) -> None:
    create("other", backend_options={"port": current().instances.port_range[0] + 3})
    instance = create()
    port = str(current().instances.port_range[0] + 3)
    response = operator.post(page(instance), form_data(operator, page(instance), port=port))
    assert list(response.context["adminform"].form.errors) == ["port"]
    before = instance.options
    instance.refresh_from_db()
    assert instance.options == before


def test_pasted_command_fills_the_fields(operator: Client) -> None:
    command = "A=1 llama-server -m /models/gemma.gguf -c 8192 --mlock --new-flag 3"
    answer = operator.post(
        f"{LIST}parse-command/", {"backend_type": "llama_cpp", "command": command}
    ).json()
    fields = answer["fields"]
    assert (fields["name"], fields["model"], fields["ctx_size"], fields["environment"]) == (
        "gemma",
        "/models/gemma.gguf",
        "8192",
        "A=1",
    )
    assert '"mlock": true' in fields["further_options"]


def test_a_pasted_container_of_another_backend_fills_the_fields(operator: Client) -> None:
    command = "docker run -v /m:/m vllm/vllm-openai:v1 --model o/n --served-model-name qwen3 q"
    fields = operator.post(
        f"{LIST}parse-command/", {"backend_type": "llama_cpp", "command": command}
    ).json()["fields"]
    chosen = ("backend_type", "name", "model", "docker_enabled", "docker_image", "docker_args")
    assert [fields[name] for name in chosen] == [
        *("vllm", "qwen3", "o/n", "true", "vllm/vllm-openai:v1", "-v /m:/m"),
    ]


def test_the_alias_of_a_pasted_command_is_offered_as_the_name(operator: Client) -> None:
    command = "llama-server -m /models/gemma.gguf --alias qwen3,other"
    fields = operator.post(
        f"{LIST}parse-command/", {"backend_type": "llama_cpp", "command": command}
    ).json()["fields"]
    assert fields["name"] == "qwen3"


@pytest.mark.parametrize(
    ("backend_type", "command"), [("llama_cpp", ""), ("llama_cpp", "x 'y"), ("nope", "x")]
)
def test_command_that_can_not_be_read_is_explained(
    operator: Client, backend_type: str, command: str
) -> None:
    data = {"backend_type": backend_type, "command": command}
    response = operator.post(f"{LIST}parse-command/", data)
    assert response.status_code == 400
    assert response.json()["details"]


# -- the detail page ------------------------------------------------------------------------------


def test_detail_page_explains_the_failure_and_shows_history_and_log(operator: Client) -> None:
    instance = create()
    lifecycle.request_start("gemma", cause="test")
    observe(
        instance,
        status=Status.FAILED,
        observed_generation=1,
        restarts=3,
        failure={
            "reason": "out_of_memory",
            "details": "It needs more memory than there is.",
            "exit_code": 137,
            "log_tail": ["loading", "killed"],
        },
    )
    now = timezone.now()
    for number in range(25):
        StatusChange.objects.create(
            instance=instance,
            at=now - timedelta(minutes=number),
            old="starting",
            new="failed",
            reason=f"reason-{number:02}",
            cause="supervisor:crash",
        )
    path = log_path(current(), "gemma")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"line {number:03}\n" for number in range(150)))
    text = operator.get(page(instance)).content.decode()
    for expected in (
        "out of memory",
        "It needs more memory than there is.",
        "Exit code 137",
        "loading\nkilled",
        "reason-00",
        "reason-19",
        "line 050",
        "line 149",
        "curl http://testserver/v1/chat/completions",
        "Bearer $LLAMACTL_KEY",
    ):
        assert expected in text, expected
    for unexpected in ("reason-20", "line 049"):
        assert unexpected not in text


def test_fragment_has_the_parts_that_the_page_swaps(operator: Client) -> None:
    instance = create()
    text = operator.get(page(instance, "now")).content.decode()
    for part in ("facts", "controls", "trouble", "log", "history"):
        assert f'data-part="{part}"' in text


def test_unreadable_log_is_reported_on_the_page(operator: Client) -> None:
    instance = create("blocked")
    path = log_path(current(), "blocked")
    path.mkdir(parents=True)
    text = operator.get(page(instance)).content.decode()
    path.rmdir()
    assert "The log can&#x27;t be read" in text


def test_hostile_text_is_shown_and_does_nothing(operator: Client, viewer: Client) -> None:
    """It should come out escaped wherever it got in: options, log, failure, history."""
    instance = create(
        "hostile",
        backend_options={"model": "/m/<script>alert(1)</script>\u202egnp.gguf"},
        environment={"A": HOSTILE.replace("\x00", "")},
        group="</textarea><script>alert(3)</script>",
        command_override="\u202e<b>",
    )
    # As a release stored it that refused fewer values.
    instance.options["environment"]["B"] = "half \ud800 pair"
    instance.save()
    observe(
        instance,
        status=Status.FAILED,
        failure={"reason": HOSTILE, "details": HOSTILE, "exit_code": HOSTILE, "log_tail": HOSTILE},
    )
    StatusChange.objects.create(
        instance=instance, old="starting", new="failed", reason=HOSTILE, cause="x:<script>"
    )
    path = log_path(current(), "hostile")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HOSTILE.encode() + b"\xff\xfe\n" + b"x" * 5_000_000)
    for client in (operator, viewer):
        for url in (LIST, page(instance), page(instance, "now"), "/admin/"):
            response = client.get(url)
            assert response.status_code == 200, url
            text = response.content.decode()
            assert len(text) < 400_000
            for raw in ("<script>alert", "<img src=x", "<b>", "\x1b", "\u202e", "\x00"):
                assert raw not in text, (url, raw)


# -- deleting -------------------------------------------------------------------------------------


def test_running_instance_is_not_deleted_and_the_reason_is_shown(operator: Client) -> None:
    instance = create()
    run(instance)
    response = operator.post(page(instance, "delete"), {"post": "yes"}, follow=True)
    assert response.redirect_chain == [(page(instance), 302)]
    assert any("stop it before deleting" in text for text in texts(response))
    assert Instance.objects.exists()
    assert not LogEntry.objects.exists()


def test_stopped_instance_is_deleted_with_its_history_after_a_question(operator: Client) -> None:
    instance = create()
    StatusChange.objects.create(instance=instance, old="stopped", new="starting", cause="x")
    assert "Are you sure" in operator.get(page(instance, "delete")).content.decode()
    operator.post(page(instance, "delete"), {"post": "yes"})
    assert not Instance.objects.exists()
    assert not StatusChange.objects.exists()


def test_delete_of_several_deletes_the_stopped_and_names_the_others(
    operator: Client,
) -> None:
    rests, runs = create("rests"), create("runs")
    run(runs)
    data = {"action": "delete_selected", "_selected_action": [rests.pk, runs.pk]}
    assert "Are you sure" in operator.post(LIST, data).content.decode()
    assert Instance.objects.count() == 2
    said = "\n".join(texts(operator.post(LIST, {**data, "post": "yes"}, follow=True)))
    assert "Deleted 1: rests." in said
    assert "runs: instance with name runs is still running" in said
    assert [row.name for row in Instance.objects.all()] == ["runs"]


# -- polling --------------------------------------------------------------------------------------


def test_statuses_of_existing_instances_take_one_query(
    operator: Client, django_assert_max_num_queries: Any
) -> None:
    runs, rests = create("runs"), create("rests")
    run(runs)
    with django_assert_max_num_queries(3):
        response = operator.get(f"{LIST}statuses/?ids={runs.pk},{rests.pk},999,x,-1,{10**30}")
    assert response.json() == {
        str(runs.pk): {"status": "running", "label": "running", "title": ""},
        str(rests.pk): {"status": "stopped", "label": "stopped", "title": ""},
    }


def test_hold_is_shown_on_the_page_and_in_the_list(operator: Client) -> None:
    stopped, failed = create("stopped"), create("failed")
    lifecycle.request_stop("stopped", cause="admin:olga")
    lifecycle.request_start("failed", cause=ON_DEMAND)
    until = timezone.now() + timedelta(seconds=250)
    observe(failed, status=Status.FAILED, observed_generation=1, failure_hold_until=until)
    polled = operator.get(f"{LIST}statuses/?ids={stopped.pk},{failed.pk}").json()
    for instance, reason in ((stopped, "stopped by an operator"), (failed, "the last start fail")):
        text = rf"no request starts it for \d+ s: {reason}"
        for shown in (LIST, page(instance), page(instance, "now")):
            assert re.search(text, operator.get(shown).content.decode()), shown
        assert re.match(text, polled[str(instance.pk)]["title"])


@pytest.mark.parametrize("path", ["999/now/", "999/change/", "x/now/"])
def test_page_of_an_instance_that_is_gone_is_no_error(operator: Client, path: str) -> None:
    assert operator.get(LIST + path).status_code in (302, 404)


@pytest.mark.parametrize("control", ["", "start", "start:", "start:999", "explode:1", "start:x"])
def test_button_of_nothing_is_not_found(operator: Client, control: str) -> None:
    assert operator.post(LIST, {"control": control}).status_code == 404
