"""The import of a Go llamactl's instances and keys."""

from __future__ import annotations

import io
import socket
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from instances import lifecycle
from instances.models import Instance
from keys import issuing
from keys.models import ImportedHash, InferenceKey
from keys.rights import Rights, rights_of
from llamactl.config import AppConfig
from llamactl.importer.go_database import UnreadableGoDatabase, read
from llamactl.importer.report import Outcome, Report
from llamactl.importer.run import import_all, notice
from tests.support.go_llamactl import GO_DATABASE, NEWER_SCHEMA, copy_database

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def port_range(override: Any) -> AppConfig:
    config: AppConfig = override(instances={"port_range": (18310, 18390)})
    return config


def imported(path: Path = GO_DATABASE, *, is_dry_run: bool = False) -> Report:
    return import_all(read(path), is_dry_run=is_dry_run)


def outcomes(report: Report) -> dict[str, Outcome]:
    return {f"{entry.kind} {entry.name}": entry.outcome for entry in report.entries}


def notes(report: Report, name: str) -> str:
    return " / ".join(
        note for entry in report.entries if entry.name == name for note in entry.notes
    )


def test_instances_keep_id_port_time_and_options() -> None:
    report = imported()
    assert set(outcomes(report).values()) == {Outcome.IMPORTED}
    rows = {
        row.name: (row.pk, row.port, int(row.created_at.timestamp()))
        for row in Instance.objects.all()
    }
    assert rows == {
        "chat": (1, 18310, 1796070096),
        "router": (2, 18311, 1796070096),
        "vl.lm": (3, 18312, 1796070096),
        "apple": (4, 18313, 1796070096),
        "over": (5, 18314, 1796070096),
    }
    chat = Instance.objects.get(name="chat").parsed_options
    assert chat.backend_type == "llama_cpp"
    assert chat.backend_options == {
        "chat_template_kwargs": '{"enable_thinking": false}',
        "ctx_size": 8192,
        "gpu_layers": 99,
        "model": "/models/chat.gguf",
    }
    assert chat.environment == {"CUDA_VISIBLE_DEVICES": "0", "HF_TOKEN": "hf_example"}
    assert (chat.group, chat.idle_timeout) == ("large", 15)
    over = Instance.objects.get(name="over").parsed_options
    assert over.backend_options["extra_args"] == {"new_flag_of_later": "7"}
    assert (over.command_override, over.max_restarts) == ("/opt/llama/llama-server", 0)
    assert Instance.objects.get(name="vl.lm").parsed_options.docker_enabled is True
    router = Instance.objects.get(name="router").parsed_options
    assert router.preset_ini == "[*]\nctx-size = 4096\n\n[small]\nmodel = /models/small.gguf\n"
    assert not any(entry.notes for entry in report.entries if entry.name != "chat")


def test_an_instance_that_was_never_idle_is_pinned(tmp_path: Path) -> None:
    path = copy_database(
        tmp_path,
        "UPDATE instances SET options_json = json_set(options_json, '$.idle_timeout', 0)"
        " WHERE name = 'over'",
        "UPDATE instances SET options_json = json_remove(options_json, '$.idle_timeout')"
        " WHERE name = 'apple'",
    )
    report = imported(path)
    pinned = {row.name for row in Instance.objects.all() if row.parsed_options.pinned}
    assert pinned == {"over", "apple"}
    assert "it is pinned" in notes(report, "over")


def test_the_instance_that_ran_is_to_run_and_the_others_are_stopped() -> None:
    imported()
    states = dict(Instance.objects.values_list("name", "desired_state"))
    assert states.pop("chat") == "running"
    assert set(states.values()) == {"stopped"}
    assert Instance.objects.get(name="chat").requested_by == "import"


def test_an_instance_whose_port_somebody_listens_on_is_left_stopped() -> None:
    # The Go program, or the backend that it left behind: two of them would not fit in memory.
    with socket.create_server(("127.0.0.1", 18310)):
        report = imported()
    assert Instance.objects.get(name="chat").desired_state == "stopped"
    assert "a process listens on port 18310" in notes(report, "chat")


def test_keys_keep_id_name_permissions_and_expiry() -> None:
    imported()
    everything, two, later = InferenceKey.objects.order_by("pk")
    assert [key.pk for key in (everything, two, later)] == [1, 2, 3]
    assert [key.name for key in (everything, two, later)] == ["all", "two", "later"]
    assert everything.permission_mode == later.permission_mode == "allow_all"
    assert {each.name for each in two.instances.all()} == {"chat", "vl.lm"}
    assert later.expires_at is not None
    assert int(later.expires_at.timestamp()) == 1924992000
    assert int(two.created_at.timestamp()) == 1796070096
    # No key can be used that nobody knows: the digests are random until the first use.
    assert len({bytes(key.digest) for key in (everything, two, later)}) == 3


def test_a_dry_run_reports_the_same_and_changes_nothing() -> None:
    tried = imported(is_dry_run=True)
    assert not Instance.objects.exists()
    assert not InferenceKey.objects.exists()
    assert not ImportedHash.objects.exists()
    assert [entry.lines() for entry in imported().entries] == [
        entry.lines() for entry in tried.entries
    ]


def test_the_second_import_changes_nothing() -> None:
    imported()
    lifecycle.update("router", {"group": "mine"}, cause="test")
    lifecycle.request_stop("chat", cause="test")
    before = list(Instance.objects.order_by("pk").values())
    again = imported()
    assert set(outcomes(again).values()) == {Outcome.UNCHANGED}
    assert list(Instance.objects.order_by("pk").values()) == before
    assert InferenceKey.objects.count() == 3


def test_a_revoked_key_is_not_brought_back() -> None:
    imported()
    issuing.revoke(InferenceKey.objects.filter(name="all"))
    assert outcomes(imported())["key all"] is Outcome.UNCHANGED
    assert not InferenceKey.objects.filter(name="all").exists()


def test_a_taken_name_is_reported_and_its_instance_not_opened_to_the_key() -> None:
    mine = lifecycle.create("chat", {"backend_options": {"model": "/mine.gguf"}}, cause="test")
    report = imported()
    assert outcomes(report)["instance chat"] is Outcome.REFUSED
    assert "another instance has this name" in notes(report, "chat")
    assert Instance.objects.get(name="chat").options == mine.options
    assert {each.name for each in InferenceKey.objects.get(name="two").instances.all()} == {"vl.lm"}


def test_a_name_that_became_free_is_imported_later_and_opened_to_the_key() -> None:
    lifecycle.create("chat", {}, cause="test")
    imported()
    lifecycle.delete("chat", cause="test")
    report = imported()
    assert outcomes(report)["instance chat"] is Outcome.IMPORTED
    two = InferenceKey.objects.get(name="two")
    assert {each.name for each in two.instances.all()} == {"chat", "vl.lm"}


def test_a_narrowed_key_stays_narrowed() -> None:
    imported()
    two = InferenceKey.objects.get(name="two")
    two.instances.set([Instance.objects.get(name="chat")])
    imported()
    assert {each.name for each in two.instances.all()} == {"chat"}


def test_a_taken_port_or_id_is_replaced_and_reported() -> None:
    mine = lifecycle.create("mine", {"backend_options": {"port": 18311}}, cause="test")
    Instance.objects.filter(pk=mine.pk).update(id=2)
    report = imported()
    router = Instance.objects.get(name="router")
    assert router.port not in (18310, 18311, 18312, 18313, 18314)
    assert f"port 18311 can't be kept; its port is {router.port} now" in notes(report, "router")
    assert f"id 2 is taken here; its id is {router.pk} now" in notes(report, "router")
    assert Instance.objects.get(name="vl.lm").port == 18312


def test_a_port_outside_the_range_takes_no_other_instances_port(override: Any) -> None:
    override(instances={"port_range": (18311, 18320)})
    imported()
    ports = dict(Instance.objects.values_list("name", "port"))
    assert ports == {"chat": 18315, "router": 18311, "vl.lm": 18312, "apple": 18313, "over": 18314}


def test_new_rows_get_new_ids_after_an_import() -> None:
    imported()
    assert lifecycle.create("new", {}, cause="test").pk > 5
    assert issuing.issue(name="new", permission_mode="allow_all")[0].pk > 3


def test_rights_of_newer_permissions_are_kept(tmp_path: Path) -> None:
    path = copy_database(
        tmp_path,
        *NEWER_SCHEMA,
        "UPDATE key_permissions SET can_start = 0 WHERE instance_id = 1",
        "UPDATE key_permissions SET can_evict = 0 WHERE instance_id = 3",
    )
    report = imported(path)
    assert {each.name for each in InferenceKey.objects.get(name="two").instances.all()} == {
        "chat",
        "vl.lm",
    }
    rights = rights_of(InferenceKey.objects.get(name="two"))
    assert rights[Instance.objects.get(name="chat").pk] == Rights(can_evict=True)
    assert rights[Instance.objects.get(name="vl.lm").pk] == Rights(can_start=True)
    assert notes(report, "two") == ""


def test_the_newer_schema_without_limits_reports_none(tmp_path: Path) -> None:
    report = imported(copy_database(tmp_path, *NEWER_SCHEMA))
    assert set(outcomes(report).values()) == {Outcome.IMPORTED}
    assert notes(report, "two") == ""


def test_a_permission_that_allows_no_inference_opens_nothing(tmp_path: Path) -> None:
    path = copy_database(
        tmp_path,
        "ALTER TABLE key_permissions ADD COLUMN can_infer INTEGER NOT NULL DEFAULT 1",
        "UPDATE key_permissions SET can_infer = 0 WHERE instance_id = 1",
    )
    imported(path)
    assert {each.name for each in InferenceKey.objects.get(name="two").instances.all()} == {"vl.lm"}


def test_rows_that_can_not_be_imported_keep_no_other_row_out(tmp_path: Path) -> None:
    insert = "INSERT INTO instances (id, name, status, created_at, updated_at, options_json) VALUES"
    path = copy_database(
        tmp_path,
        f"{insert} (6, 'broken', 'stopped', 1, 1, '[1')",
        f"{insert} (7, '.hidden', 'stopped', 1, 1, '{{}}')",
        f"{insert} (8, 'odd', 'running', 1, 1,"
        ' \'{"backend_options": {"ctx_size": "many"}, "new_option": 1}\')',
        f"{insert} (9, 'null', 'failed', 1, 1, '{{\"backend_options\": null, \"later\": 2}}')",
        "UPDATE api_keys SET key_hash = '$argon2id$v=19$m=99999999,t=1,p=4$c2FsdHNhbHQ$aGFzaA'"
        " WHERE id = 1",
        "UPDATE api_keys SET expires_at = 999999999999999 WHERE id = 3",
    )
    report = imported(path)
    found = outcomes(report)
    refused = {"instance broken", "instance .hidden", "instance odd", "key all"}
    assert {name for name, outcome in found.items() if outcome is Outcome.REFUSED} == refused
    assert "ctx_size" in notes(report, "odd")
    assert "the option later is not known here" in notes(report, "null")
    assert Instance.objects.count() == 6
    assert InferenceKey.objects.get(name="later").expires_at.year == 9999  # type: ignore[union-attr]


def test_the_notice_counts_what_is_not_imported(tmp_path: Path) -> None:
    copy_database(tmp_path)
    config = AppConfig(data_dir=tmp_path)
    found = notice(config)
    assert "5 instances and 3 keys that are not imported yet" in found
    assert str(tmp_path / "llamactl.db") in found
    assert "manage.py import_llamactl" in found
    imported()
    assert notice(config) == ""
    Instance.objects.get(name="over").delete()
    assert "1 instance and 0 keys" in notice(config)


def test_without_a_go_database_there_is_no_notice(tmp_path: Path) -> None:
    assert notice(AppConfig(data_dir=tmp_path)) == ""


@pytest.mark.django_db(transaction=True)
def test_the_command_imports_a_named_file() -> None:
    output = io.StringIO()
    call_command("import_llamactl", str(GO_DATABASE), "--dry-run", stdout=output)
    assert "instance chat: imported" in output.getvalue()
    assert "5 instances imported, 3 keys imported; nothing was changed" in output.getvalue()
    assert not Instance.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_command_fails_where_something_is_refused() -> None:
    lifecycle.create("chat", {}, cause="test")
    output = io.StringIO()
    with pytest.raises(SystemExit, match="1"):
        call_command("import_llamactl", str(GO_DATABASE), stdout=output)
    assert "4 instances imported, 1 instance not imported, 3 keys imported" in output.getvalue()


@pytest.mark.parametrize("content", [None, b"", b"no database"])
def test_another_file_is_refused_by_its_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableGoDatabase, match=r"other\.db"):
        read(path)
    with pytest.raises(CommandError, match=r"other\.db"):
        call_command("import_llamactl", str(path))


def test_without_a_database_the_command_asks_for_one() -> None:
    with pytest.raises(CommandError, match="name its file"):
        call_command("import_llamactl")
