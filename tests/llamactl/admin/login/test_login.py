"""Login to the admin, with forms as a browser posts them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.utils import timezone

from llamactl.admin.login import check, hash_slots, limits
from llamactl.admin.login.errors import LoginsBusy, TooManyAttempts
from llamactl.admin.login.known_browsers import COOKIE
from llamactl.models import LoginAttempts
from tests.support.browser_form import browser_form
from tests.support.until import until

pytestmark = pytest.mark.django_db

PATH = "/admin/login/"
PASSWORD = "correct horse"
WRONG = "wrong"


@pytest.fixture(autouse=True)
def accounts() -> list[User]:
    return [User.objects.create_superuser(name, password=PASSWORD) for name in ("alice", "bob")]


class Browser:
    """A browser at an address, with its cookies."""

    def __init__(self, address: str = "192.0.2.1") -> None:
        self.address = address
        self.client = Client(enforce_csrf_checks=True)

    def post(self, path: str, **fields: str) -> HttpResponse:
        page = self.client.get(path, REMOTE_ADDR=self.address).content.decode()
        data = browser_form(page, **fields)
        return self.client.post(path, data, REMOTE_ADDR=self.address)  # type: ignore[return-value]

    def login(self, name: str = "alice", password: str = WRONG) -> HttpResponse:
        return self.post(PATH, username=name, password=password, next="/admin/")

    def logout(self) -> None:
        self.client.cookies.pop("llamactl_session")

    def change(self, old: str, new: str = "a new password 1") -> HttpResponse:
        fields = {"old_password": old, "new_password1": new, "new_password2": new}
        return self.post("/admin/password_change/", **fields)


def address(number: int) -> str:
    return f"198.51.100.{number}"


def test_a_right_password_opens_the_admin() -> None:
    assert Browser().login(password=PASSWORD)["Location"] == "/admin/"
    assert not LoginAttempts.objects.filter(count__gt=0)


def test_five_wrong_passwords_lock_an_account_for_an_address() -> None:
    browser = Browser()
    for _ in range(limits.PAIR_LIMIT):
        page = browser.login()
        assert page.status_code == 200
        assert "Please enter the correct username and password" in page.content.decode()
    # The right password too: the refusal must tell nothing of it.
    for password in ("wrong", PASSWORD):
        page = browser.login(password=password)
        assert page.status_code == 429
        assert 890 <= int(page["Retry-After"]) <= 900
        text = page.content.decode()
        assert "Too many failed logins to this account from this address." in text
        assert "Try again in 15 minutes" in text
    assert browser.login("bob", PASSWORD).status_code == 302
    assert Browser("192.0.2.2").login(password=PASSWORD).status_code == 302


@pytest.mark.parametrize("name", ["ALICE", "alice ", "\uff41lice"])
def test_another_spelling_of_a_name_is_no_other_account(name: str) -> None:
    browser = Browser()
    for _ in range(limits.PAIR_LIMIT):
        browser.login(name)
    assert browser.login("alice").status_code == 429


def test_an_unknown_account_is_locked_like_a_known_one() -> None:
    browser = Browser()
    statuses = [browser.login("nobody").status_code for _ in range(limits.PAIR_LIMIT + 1)]
    assert statuses == [200] * limits.PAIR_LIMIT + [429]


def test_twenty_wrong_passwords_lock_an_address() -> None:
    browser = Browser()
    for number in range(limits.ADDRESS_LIMIT):
        assert browser.login(f"user{number}").status_code == 200
    page = browser.login(password=PASSWORD)
    assert page.status_code == 429
    assert "Too many failed logins from this address." in page.content.decode()


def test_a_login_to_an_own_account_ends_no_lock_of_others() -> None:
    browser = Browser()
    for _ in range(limits.PAIR_LIMIT):
        browser.login("alice")
    assert browser.login("bob", PASSWORD).status_code == 302
    browser.logout()
    assert browser.login("alice", PASSWORD).status_code == 429


def guess(name: str, at: str) -> bool:
    """Count a wrong password, as its form would; returns whether it was let through."""
    request = RequestFactory().post(PATH, REMOTE_ADDR=at)
    try:
        limits.count(limits.limits_of(request, name), timezone.now())
    except TooManyAttempts:
        return False
    return True


def guess_from_everywhere(name: str) -> None:
    """Use up the limit of an account, from many addresses."""
    assert all(guess(name, address(number)) for number in range(limits.ACCOUNT_LIMIT))


def test_guesses_from_many_addresses_lock_an_account_but_not_its_known_browser() -> None:
    known = Browser()
    assert known.login(password=PASSWORD).status_code == 302
    known.logout()
    guess_from_everywhere("alice")
    page = Browser("203.0.113.9").login(password=PASSWORD)
    assert page.status_code == 429
    assert "Too many failed logins to this account." in page.content.decode()
    assert known.login(password=PASSWORD).status_code == 302
    # Elsewhere too: it is the browser that is known.
    known.logout()
    known.address = "203.0.113.10"
    assert known.login(password=PASSWORD).status_code == 302


def test_a_known_browser_has_a_limit_of_its_own() -> None:
    browser = Browser()
    browser.login(password=PASSWORD)
    browser.logout()
    for number in range(limits.BROWSER_LIMIT):
        browser.address = address(number)
        assert browser.login().status_code == 200
    browser.address = address(99)
    assert browser.login(password=PASSWORD).status_code == 429


@pytest.mark.parametrize("name", ["bob", "alice"])
def test_a_cookie_of_another_account_or_of_nobody_exempts_from_nothing(name: str) -> None:
    browser = Browser()
    browser.login("bob", PASSWORD)
    browser.logout()
    if name == "bob":
        browser.client.cookies[COOKIE] = browser.client.cookies[COOKIE].value[:-1] + "x"
    guess_from_everywhere(name)
    assert browser.login(name, PASSWORD).status_code == 429


def test_one_address_alone_locks_an_account_for_nobody_else() -> None:
    # Refused attempts count nowhere.
    passed = [guess("alice", "192.0.2.1") for _ in range(limits.ACCOUNT_LIMIT + 5)]
    assert passed.count(True) == limits.PAIR_LIMIT
    assert Browser("192.0.2.2").login(password=PASSWORD).status_code == 302


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "nonsense", True),
    ],
)
def test_addresses_of_one_network_count_together(first: str, second: str, same: bool) -> None:
    for _ in range(limits.PAIR_LIMIT):
        Browser(first).login()
    assert (Browser(second).login(password=PASSWORD).status_code == 429) is same


def test_a_lock_ends_after_its_time() -> None:
    for _ in range(limits.PAIR_LIMIT + 1):
        Browser().login()
    LoginAttempts.objects.update(began_at=timezone.now() - limits.WINDOW)
    assert Browser().login(password=PASSWORD).status_code == 302
    LoginAttempts.objects.update(began_at=timezone.now() - limits.KEPT - timedelta(seconds=1))
    Browser(address(1)).login("bob")
    assert LoginAttempts.objects.count() == 3


def test_a_clock_that_was_set_back_locks_nothing_for_longer() -> None:
    for _ in range(limits.PAIR_LIMIT + 1):
        Browser().login()
    assert Browser().login(password=PASSWORD).status_code == 429
    LoginAttempts.objects.update(began_at=timezone.now() + timedelta(days=300))
    for _ in range(limits.PAIR_LIMIT):
        assert Browser().login().status_code == 200
    # It should count anew from here.
    assert Browser().login(password=PASSWORD).status_code == 429


def test_a_forwarded_address_is_believed_from_nobody_here() -> None:
    # The server alone replaces the address, for a reverse proxy on this machine.
    browser = Browser()
    browser.client.defaults["HTTP_X_FORWARDED_FOR"] = "203.0.113.1"
    for number in range(limits.PAIR_LIMIT):
        browser.client.defaults["HTTP_X_FORWARDED_FOR"] = address(number)
        browser.login()
    assert browser.login(password=PASSWORD).status_code == 429


def test_failures_are_logged_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    browser = Browser()
    for _ in range(limits.PAIR_LIMIT + 3):
        browser.login("eve\nroot: all is well" + "x" * 100)
    lines = [each.getMessage() for each in caplog.records if each.name == check.__name__]
    assert len(lines) == limits.PAIR_LIMIT + 1  # no line for a refused attempt
    assert all("\n" not in line and len(line) < 250 and "192.0.2.1" in line for line in lines)
    assert "account 'eve\\nroot" in lines[0]
    assert "no more logins to this account from this address" in lines[-1]


def test_the_form_for_another_password_has_the_same_limits() -> None:
    browser = Browser()
    browser.client.force_login(User.objects.get(username="alice"))
    for _ in range(limits.PAIR_LIMIT):
        page = browser.change("wrong")
        assert page.status_code == 200
        assert "Your old password was entered incorrectly" in page.content.decode()
    page = browser.change(PASSWORD)
    assert page.status_code == 429
    assert int(page["Retry-After"]) > 0
    assert "Try again in 15 minutes" in page.content.decode()
    assert User.objects.get(username="alice").check_password(PASSWORD)
    browser.address = address(1)
    changed = browser.change(PASSWORD)
    assert changed["Location"] == "/admin/password_change/done/"
    assert User.objects.get(username="alice").check_password("a new password 1")


def test_a_login_without_a_request_has_no_limit() -> None:
    client = Client()  # its login() calls authenticate() as a command would
    for _ in range(limits.ADDRESS_LIMIT + 1):
        assert not client.login(username="alice", password="wrong")
    assert client.login(username="alice", password=PASSWORD)


def test_a_busy_machine_refuses_a_login_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = hash_slots.HashSlot(wait_seconds=0.01)
    monkeypatch.setattr(check, "slot_for", lambda **_: busy)
    with busy.taken():
        page = Browser().login(password=PASSWORD)
    assert (page.status_code, page["Retry-After"]) == (503, "10")
    assert "Too many logins at once" in page.content.decode()
    assert not LoginAttempts.objects.exists()


def test_one_password_is_hashed_at_a_time_and_a_bounded_number_waits() -> None:
    slot = hash_slots.HashSlot(max_waiting=3)
    at_once: list[int] = []
    running = threading.Semaphore(0)
    go_on = threading.Event()
    counts: dict[str, int] = {"in": 0, "busy": 0}
    lock = threading.Lock()

    def count(name: str, by: int = 1) -> int:
        with lock:
            counts[name] += by
            return counts[name]

    def hash_password() -> None:
        try:
            with slot.taken():
                at_once.append(count("in"))
                running.release()
                go_on.wait(30)
                count("in", -1)
        except LoginsBusy:
            count("busy")

    threads = run_each(hash_password, 10)
    until(lambda: counts["busy"] == 6)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert at_once == [1] * 4
    assert counts == {"in": 0, "busy": 6}


def run_each(function: Callable[[], Any], times: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=function) for _ in range(times)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.django_db(transaction=True)
def test_logins_at_the_same_moment_stay_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is counted before its password is compared."""
    compared: list[bool] = []
    original = User.check_password

    def compare(user: User, password: str) -> bool:
        compared.append(True)
        return original(user, password)

    monkeypatch.setattr(User, "check_password", compare)
    monkeypatch.setattr(check, "slot_for", lambda **_: hash_slots.HashSlot())
    browsers = [Browser() for _ in range(10)]
    pages = [browser.client.get(PATH).content.decode() for browser in browsers]
    statuses: list[int] = []

    def post(browser: Browser, page: str) -> None:
        data = browser_form(page, username="alice", password="wrong")
        statuses.append(browser.client.post(PATH, data, REMOTE_ADDR=browser.address).status_code)
        connection.close()

    threads = [
        threading.Thread(target=post, args=pair) for pair in zip(browsers, pages, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert sorted(statuses) == [200] * limits.PAIR_LIMIT + [429] * 5
    assert len(compared) == limits.PAIR_LIMIT
