"""Admin pages of the inference keys."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from instances import lifecycle
from instances.models import Instance
from keys import issuing
from keys.models import InferenceKey
from keys.rights import Rights, rights_of
from keys.secrets import digest
from llamactl.models import Revision, Topic
from tests.support.browser_form import browser_form

pytestmark = pytest.mark.django_db

LIST = "/admin/keys/inferencekey/"
ADD = f"{LIST}add/"
PLAIN = re.compile(r"llamactl-[0-9a-f]{64}")


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


@pytest.fixture
def viewer() -> Client:
    user = User.objects.create_user("vera", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


def instance(name: str = "gemma") -> Instance:
    return lifecycle.create(name, {"backend_type": "llama_cpp"}, cause="test")


def key(name: str = "app", **changes: Any) -> InferenceKey:
    return issuing.issue(name=name, **{"permission_mode": "allow_all", **changes})[0]


def page(row: InferenceKey, name: str = "change") -> str:
    return f"{LIST}{row.pk}/{name}/"


def relative_time(at: datetime) -> dict[str, str]:
    return {"expires_at_0": f"{at:%Y-%m-%d}", "expires_at_1": f"{at:%H:%M:%S}"}


def test_new_key_is_shown_in_the_response_to_its_form_and_nowhere_else(operator: Client) -> None:
    chosen = instance()
    data = {"name": "bot", "permission_mode": "per_instance", "instances": [chosen.pk]}
    response = operator.post(ADD, data)
    text = response.content.decode()
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    assert response["Referrer-Policy"] == "no-referrer"
    [plain] = set(PLAIN.findall(text))
    assert text.count(plain) == 2  # the key, and the curl line with it
    assert '"model": "gemma"' in text.replace("&quot;", '"')

    row = InferenceKey.objects.get()
    assert bytes(row.digest) == digest(plain)
    assert list(row.instances.all()) == [chosen]
    stored = [session.session_data for session in Session.objects.all()]
    stored += [f"{entry.object_repr}{entry.change_message}" for entry in LogEntry.objects.all()]
    stored += [morsel.value for morsel in operator.cookies.values()]
    assert not any(plain in value or plain[-20:] in value for value in stored)
    for url in (LIST, page(row), f"{LIST}{row.pk}/history/", "/admin/"):
        assert plain not in operator.get(url).content.decode(), url


def test_list_shows_instances_and_expiry_of_each_key(operator: Client) -> None:
    ids = [instance(name).pk for name in ("a", "b", "c", "d")]
    row = key("old", permission_mode="per_instance", instance_ids=ids)
    InferenceKey.objects.update(expires_at=timezone.now() - timedelta(days=1))
    text = operator.get(LIST).content.decode()
    for expected in (f"…{row.hint}", "a, b, c and 1 more", "expired", "never", "1 d ago"):
        assert expected in text, expected


def test_list_makes_no_query_per_row(operator: Client, django_assert_max_num_queries: Any) -> None:
    chosen = instance().pk
    for number in range(30):
        key(f"k{number}", permission_mode="per_instance", instance_ids=[chosen])
    # session, user, two counts, the rows, the instances of all of them, the banner
    with django_assert_max_num_queries(7):
        assert operator.get(LIST).status_code == 200


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("state=valid", {"new", "used"}),
        ("state=expired", {"old"}),
        ("state=unused", {"new", "old"}),
        ("state=nonsense", {"new", "old", "used"}),
        ("q=ne", {"new"}),
    ],
)
def test_filters_and_search_find(operator: Client, query: str, names: set[str]) -> None:
    now = timezone.now()
    InferenceKey.objects.filter(pk=key("old").pk).update(expires_at=now - timedelta(days=1))
    InferenceKey.objects.filter(pk=key("used").pk).update(last_used_at=now)
    key("new", expires_at=now + timedelta(days=1))
    rows = operator.get(f"{LIST}?{query}").context["cl"].result_list
    assert {row.name for row in rows} == names


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"permission_mode": "all"}, "permission_mode"),
        ({"permission_mode": "per_instance"}, "instances"),
        ({"permission_mode": "per_instance", "instances": "999"}, "instances"),
        ({"expires_at_0": "2020-01-01", "expires_at_1": "00:00"}, "expires_at"),
        ({"expires_at_0": "soon"}, "expires_at"),
    ],
)
def test_error_is_shown_at_its_field_and_no_key_is_created(
    operator: Client, changes: dict[str, str], field: str
) -> None:
    response = operator.post(ADD, {"name": "bot", "permission_mode": "allow_all", **changes})
    assert response.status_code == 200
    assert list(response.context["adminform"].form.errors) == [field]
    assert not InferenceKey.objects.exists()


def test_instance_deleted_under_the_form_is_a_message(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deletion falls between the form's validation and the issue, whose error is shown."""
    chosen = instance()
    monkeypatch.setattr(issuing, "validate", lambda **asked: None)
    real = issuing.issue

    def issue(**asked: Any) -> Any:
        Instance.objects.all().delete()
        monkeypatch.undo()
        return real(**asked)

    monkeypatch.setattr(issuing, "issue", issue)
    data = {"name": "bot", "permission_mode": "per_instance", "instances": [chosen.pk]}
    response = operator.post(ADD, data)
    assert response.status_code == 200
    assert "does not exist" in response.content.decode()
    assert not InferenceKey.objects.exists()


def test_rights_are_ticked_by_instance(operator: Client) -> None:
    one, two = instance("one"), instance("two")
    shown = operator.get(ADD).context["adminform"].form
    ticked = [set(shown.initial[name]) for name in ("can_start", "can_evict", "can_stop")]
    assert ticked == [{one.pk, two.pk}, {one.pk, two.pk}, set()]
    data = {"name": "bot", "permission_mode": "per_instance", "instances": [one.pk]}
    # It should give no right on an instance that is not chosen.
    operator.post(ADD, {**data, "can_start": [one.pk, two.pk], "can_stop": [one.pk]})
    row = InferenceKey.objects.get()
    assert rights_of(row) == {one.pk: Rights(can_start=True, can_stop=True)}
    form = browser_form(operator.get(page(row)).content.decode())
    response = operator.post(page(row), {**form, "instances": [one.pk, two.pk]})
    assert response.status_code == 302
    assert rights_of(row) == {one.pk: Rights(can_start=True, can_stop=True), two.pk: Rights()}
    operator.post(page(row), {"name": "bot", "permission_mode": "allow_all"})
    assert rights_of(row) == {}


def test_viewer_sees_the_rights(viewer: Client) -> None:
    one, two = instance("one"), instance("two")
    rights = {one.pk: Rights(can_start=True), two.pk: Rights(can_stop=True)}
    row = key(permission_mode="per_instance", rights=rights)
    text = viewer.get(page(row)).content.decode()
    for label, shown in (("May start", "one"), ("May stop", "two")):
        value = re.search(r'class="readonly[^"]*">([^<]*)<', text.split(f">{label}<")[1])
        assert value is not None
        assert value[1] == shown


def test_key_is_blocked_in_its_form(operator: Client) -> None:
    row = key()
    form = browser_form(operator.get(page(row)).content.decode())
    operator.post(page(row), {**form, "is_blocked": "on"})
    row.refresh_from_db()
    assert row.is_blocked
    assert "blocked" in operator.get(LIST, {"state": "blocked"}).content.decode()
    assert not operator.get(LIST, {"state": "valid"}).context["cl"].result_count


def test_edit_is_announced_and_keeps_the_digest(operator: Client) -> None:
    chosen = instance()
    row = key()
    used = timezone.now()
    InferenceKey.objects.update(last_used_at=used)
    before = Revision.numbers()[Topic.KEYS]
    in_a_year = (timezone.now() + timedelta(days=365)).replace(microsecond=0)
    operator.post(
        page(row),
        {
            "name": "renamed",
            "permission_mode": "per_instance",
            "instances": [chosen.pk],
            **relative_time(in_a_year),
        },
    )
    after = InferenceKey.objects.get()
    assert (after.name, after.permission_mode, after.expires_at) == (
        "renamed",
        "per_instance",
        in_a_year,
    )
    assert list(after.instances.all()) == [chosen]
    assert (bytes(after.digest), after.last_used_at) == (bytes(row.digest), used)
    assert Revision.numbers()[Topic.KEYS] > before


def test_edit_keeps_a_last_use_written_at_the_same_time(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = key()
    used = timezone.now()

    def validate(**asked: Any) -> None:
        """Between the form's reading of the row and its writing."""
        InferenceKey.objects.update(last_used_at=used)

    monkeypatch.setattr(issuing, "validate", validate)
    operator.post(page(row), {"name": "renamed", "permission_mode": "allow_all"})
    after = InferenceKey.objects.get()
    assert (after.name, after.last_used_at) == ("renamed", used)


def test_widening_a_key_forgets_its_instances(operator: Client) -> None:
    chosen = instance()
    row = key(permission_mode="per_instance", instance_ids=[chosen.pk])
    data = {"name": "app", "permission_mode": "allow_all", "instances": [chosen.pk]}
    operator.post(page(row), data)
    assert not InferenceKey.objects.get().instances.exists()


def test_expired_key_may_be_renamed_but_not_moved_to_another_past_date(operator: Client) -> None:
    row = key()
    past = (timezone.now() - timedelta(days=1)).replace(microsecond=0)
    InferenceKey.objects.update(expires_at=past)
    data = {"name": "renamed", "permission_mode": "allow_all"}
    assert operator.post(page(row), {**data, **relative_time(past)}).status_code == 302
    response = operator.post(page(row), {**data, **relative_time(past - timedelta(days=1))})
    assert list(response.context["adminform"].form.errors) == ["expires_at"]


def test_revocation_deletes_and_is_announced(operator: Client) -> None:
    rows = [key(name) for name in ("a", "b", "c")]
    before = Revision.numbers()[Topic.KEYS]
    assert "Are you sure" in operator.get(page(rows[0], "delete")).content.decode()
    operator.post(page(rows[0], "delete"), {"post": "yes"})
    selected = [row.pk for row in rows[1:]]
    data = {"action": "delete_selected", "_selected_action": selected, "post": "yes"}
    operator.post(LIST, data)
    assert not InferenceKey.objects.exists()
    assert Revision.numbers()[Topic.KEYS] == before + 2


def test_viewer_can_only_view(viewer: Client) -> None:
    row = key()
    assert viewer.get(LIST).status_code == 200
    assert viewer.get(page(row)).status_code == 200
    for url in (ADD, page(row), page(row, "delete")):
        assert viewer.post(url, {"name": "x", "post": "yes"}).status_code == 403, url
    assert InferenceKey.objects.get().name == "app"


def test_keys_need_the_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("olga"))
    assert client.post(ADD, {"name": "x", "permission_mode": "allow_all"}).status_code == 403


def test_hostile_name_is_shown_as_text(operator: Client) -> None:
    name = "<script>alert(1)</script>\u202egnp"
    response = operator.post(ADD, {"name": name, "permission_mode": "allow_all"})
    row = InferenceKey.objects.get()
    pages = [response] + [
        operator.get(url)
        for url in (LIST, page(row), page(row, "delete"), page(row, "history"), "/admin/")
    ]
    for answer in pages:
        assert answer.status_code == 200
        assert "<script>alert" not in answer.content.decode()


@pytest.mark.parametrize("mode", ["allow_all", "per_instance"])
def test_save_without_a_change_does_nothing(operator: Client, mode: str) -> None:
    expires_at = timezone.now() + timedelta(days=3)  # with microseconds, which no form shows
    ids = [instance().pk, instance("other").pk]
    row = key(permission_mode=mode, instance_ids=ids, expires_at=expires_at, name=" app ")
    before = (InferenceKey.objects.values().get(), Revision.numbers())
    form = browser_form(operator.get(page(row)).content.decode())
    assert operator.post(page(row), form).status_code == 302
    assert (InferenceKey.objects.values().get(), Revision.numbers()) == before
    assert not LogEntry.objects.exists()
    operator.post(page(row), form | {"name": ["renamed"]})
    row.refresh_from_db()
    assert (row.name, row.expires_at) == ("renamed", expires_at)
