"""Pages that show a form again: the same characters, in a text that is not wide."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

pytestmark = pytest.mark.django_db

INSTANCE = "/admin/instances/instance/add/"
TEXT = "é <\uff5cbegin▁of▁sentence\uff5c> 😀 \"quoted\" & 'so' &#128512;"


class Fields(HTMLParser):
    """The values of a page's fields, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._area = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "input":
            self.values[named.get("name") or ""] = named.get("value") or ""
        elif tag == "textarea":
            self._area = named.get("name") or ""
            self.values[self._area] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._area = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.values[self._area] += data


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("olga"))
    return client


def test_each_character_is_shown_again(operator: Client) -> None:
    names = ("name", "environment", "backend_type", "further_options")
    response: Any = operator.post(INSTANCE, dict.fromkeys(names, TEXT))
    page = response.content.decode()
    shown = Fields(page).values
    assert shown["name"] == TEXT
    assert shown["environment"].strip() == shown["further_options"].strip() == TEXT
    # It should be a text of one or two bytes a character while Django renders it.
    assert "Select a valid choice" in page
    assert max(page) <= "\uffff"
