"""llamactl below a path of Debian's nginx, with nginx's shipped defaults and https.

nginx sends a foreign ``Host``, HTTP/1.0, no Upgrade and no ``X-Forwarded-…``, and takes the prefix
away. ``server.public_url`` is all that llamactl is told.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import pytest
import requests

from tests.support.nginx import running_nginx
from tests.support.paths import FAKE_BACKEND
from tests.support.stack import Stack, free_port, running_stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

UPGRADE = (
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;"
    ' proxy_set_header Connection "upgrade";'
)


@dataclass(frozen=True)
class Site:
    """llamactl as the world sees it."""

    stack: Stack
    url: str
    """``server.public_url``: nginx's shipped defaults."""
    upgrade_url: str
    """The same with the two Upgrade headers."""
    whole_path_url: str
    """A proxy that leaves the prefix in the path."""
    certificate: Path

    def session(self) -> requests.Session:
        session = requests.Session()
        session.verify = str(self.certificate)
        session.trust_env = False  # REQUESTS_CA_BUNDLE would win
        return session

    def management(self) -> requests.Session:
        session = self.session()
        session.headers["Authorization"] = f"Bearer {self.stack.management_key}"
        return session


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    plain, upgrade, whole = free_port(), free_port(), free_port()
    url = f"https://localhost:{plain}/llm"
    directory = tmp_path_factory.mktemp("nginx")
    program = directory / "fake-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE_BACKEND}" "$@"\n')
    program.chmod(0o755)
    stacks = running_stack(
        tmp_path_factory.mktemp("llamactl"),
        LLAMACTL_PUBLIC_URL=f"{url}/",
        LLAMACTL_LLAMACPP_COMMAND=str(program),
    )
    for stack in stacks:
        target = f"http://127.0.0.1:{stack.port}"
        sites = {
            plain: f"location /llm/ {{ proxy_pass {target}/; }}",
            upgrade: f"location /llm/ {{ proxy_pass {target}/; {UPGRADE} }}",
            whole: f"location /llm/ {{ proxy_pass {target}; }}",
        }
        with running_nginx(directory, sites) as certificate:
            stack.create("talker", {"model": "fake"})
            yield Site(
                stack,
                url,
                f"https://localhost:{upgrade}/llm",
                f"https://localhost:{whole}/llm",
                certificate,
            )


def token(page: requests.Response) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert found, page.text[:500]
    return found[1]


def submit(
    session: requests.Session, page: requests.Response, origin: str, **fields: str
) -> requests.Response:
    """Post the form of a page to the page's own address, as a browser does."""
    return session.post(
        page.url,
        data={"csrfmiddlewaretoken": token(page), **fields},
        headers={"Origin": origin, "Referer": page.url},
    )


@pytest.fixture(scope="module")
def admin(site: Site) -> requests.Session:
    """A session that has logged in through nginx."""
    session = site.session()
    page = session.get(f"{site.url}/")
    assert page.url == f"{site.url}/admin/login/?next=/llm/admin/"
    password = (site.stack.data_dir / "admin_password").read_text().strip()
    origin = site.url.removesuffix("/llm")
    home = submit(session, page, origin, username="admin", password=password)
    assert (home.status_code, home.url) == (200, f"{site.url}/admin/")
    return session


def test_the_session_is_of_the_prefix_and_secure(site: Site, admin: requests.Session) -> None:
    cookies = {cookie.name: cookie for cookie in admin.cookies}
    assert "llamactl_session" in cookies
    for cookie in cookies.values():
        assert cookie.secure
        assert cookie.path == "/llm/"


@pytest.mark.parametrize(
    "path",
    ["admin/", "admin/instances/instance/", "admin/instances/instance/add/", "docs"],
)
def test_every_link_of_a_page_leads_back_below_the_prefix(
    site: Site, admin: requests.Session, path: str
) -> None:
    page = admin.get(f"{site.url}/{path}")
    assert page.status_code == 200
    links = {
        urljoin(page.url, unescape(link)).partition("#")[0]
        for link in re.findall(r'(?:href|src|action|data-fragment|data-url)="([^"]+)"', page.text)
        if not link.startswith(("data:", "javascript:", "https://github.com", "mailto:"))
    }
    assert len(links) > 5
    for link in links:
        assert link.startswith(f"{site.url}/"), link
        if "logout" not in link:
            # Not every link may be fetched, but none may lead nowhere.
            assert admin.get(link).status_code in (200, 405), link


def test_a_form_is_saved_and_leads_on(site: Site, admin: requests.Session) -> None:
    page = admin.get(f"{site.url}/admin/auth/group/add/")
    saved = submit(admin, page, site.url.removesuffix("/llm"), name="readers")
    assert (saved.status_code, saved.url) == (200, f"{site.url}/admin/auth/group/")
    assert "readers" in saved.text


def test_a_form_of_another_origin_is_refused(site: Site, admin: requests.Session) -> None:
    page = admin.get(f"{site.url}/admin/auth/group/add/")
    for origin in ("https://evil.example", "http://localhost", site.url.replace("https", "http")):
        assert submit(admin, page, origin.removesuffix("/llm"), name="x").status_code == 403


def test_the_live_part_of_a_page_is_polled(site: Site, admin: requests.Session) -> None:
    listed = admin.get(f"{site.url}/admin/instances/instance/")
    (path,) = set(re.findall(r'href="(/llm/admin/instances/instance/\d+/change/)', listed.text))
    page = admin.get(urljoin(site.url, path))
    fragment = re.search(r'data-fragment="([^"]+)"', page.text)
    assert fragment
    part = admin.get(urljoin(page.url, fragment[1]))
    assert (part.status_code, part.url.startswith(f"{site.url}/admin/")) == (200, True)
    # Its example for a shell should work from elsewhere.
    assert f"{site.url}/v1/chat/completions" in unescape(page.text)


def test_the_state_of_a_page_is_polled_and_its_stream_needs_upgrade_headers(
    site: Site, admin: requests.Session
) -> None:
    page = admin.get(f"{site.url}/admin/")
    stream = re.search(r'data-stream="([^"]+)"', page.text)
    assert stream
    assert stream[1] == "/llm/admin/stream"
    assert set(admin.get(f"{site.url}/admin/stream").json()) == {"now", "problems"}
    cookie = "; ".join(f"{each.name}={each.value}" for each in admin.cookies)
    origin = site.url.removesuffix("/llm")

    async def first_message(url: str, origin: str) -> dict[str, object]:
        headers = {"Cookie": cookie, "Origin": origin}
        tls = ssl.create_default_context(cafile=str(site.certificate))
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.ws_connect(f"{url}/admin/stream", ssl=tls) as socket,
        ):
            message: dict[str, object] = await socket.receive_json(timeout=30)
            return message

    assert "now" in asyncio.run(first_message(site.upgrade_url, origin))
    for url, page_origin in ((site.url, origin), (site.upgrade_url, "https://evil.example")):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            asyncio.run(first_message(url, page_origin))


def test_the_documentation_calls_the_public_url(site: Site) -> None:
    page = site.session().get(f"{site.url}/docs")
    assert "/llm/api/schema" in page.text
    document = site.session().get(f"{site.url}/api/schema?format=json").json()
    assert document["servers"] == [{"url": site.url}]
    assert f"LLAMACTL={site.url} " in document["info"]["description"]
    assert "127.0.0.1:8080" not in document["info"]["description"]


def test_the_api_and_its_errors(site: Site) -> None:
    session = site.management()
    (instance,) = session.get(f"{site.url}/api/v1/instances").json()
    assert instance["name"] == "talker"
    missing = session.get(f"{site.url}/api/v1/nothing").json()
    assert "/llm/docs lists all paths" in missing["details"]
    page = session.get(f"{site.url}/nothing", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert 'href="/llm/admin/"' in page.text
    assert session.get(f"{site.url}/healthz").json() == {"status": "ok"}
    assert session.get(f"{site.url}/api/v1/config").json()["server"]["public_url"] == site.url


def test_a_stream_arrives_event_by_event(site: Site) -> None:
    session = site.session()
    session.headers["Authorization"] = f"Bearer {site.stack.new_key()}"
    body = {"model": "talker", "stream": True, "max_tokens": 60, "tps": 20, "messages": []}
    with session.post(f"{site.url}/v1/chat/completions", json=body, stream=True) as answer:
        assert answer.status_code == 200
        pieces = list(answer.iter_content(None))
    # nginx's buffer of 4 KB would have put many events together.
    assert len(pieces) > 30
    assert b"".join(pieces).count(b"data: ") == 61
    log = f"{site.url}/api/v1/instances/talker/logs?follow=true"
    with site.management().get(log, stream=True) as answer:
        assert next(answer.iter_lines())


@pytest.fixture
def slow_model(site: Site) -> Iterator[str]:
    site.stack.create("slow", {"model": "fake?start_seconds=75"})
    yield "slow"
    site.stack.call("POST", "/api/v1/instances/slow/stop")
    site.stack.until_status("slow", "stopped")
    assert site.stack.call("DELETE", "/api/v1/instances/slow").status_code == 204


def test_a_load_longer_than_nginxs_patience_streams(site: Site, slow_model: str) -> None:
    """nginx's proxy_read_timeout is 60 s, with nothing from llamactl until then a 504."""
    session = site.session()
    session.headers["Authorization"] = f"Bearer {site.stack.new_key()}"
    body = {"model": slow_model, "stream": True, "max_tokens": 60, "tps": 20, "messages": []}
    with session.post(f"{site.url}/v1/chat/completions", json=body, stream=True) as answer:
        assert answer.status_code == 200
        pieces = list(answer.iter_content(None))
    whole = b"".join(pieces)
    waiting, _, events = whole.partition(b"data: ")
    comments = [line for line in waiting.decode().splitlines() if line]
    assert len(comments) >= 6
    assert all(line.startswith(": ") for line in comments)
    assert any(line.startswith(": loading (") for line in comments)
    assert events.count(b"data: ") == 60
    assert len(pieces) > 30


@pytest.mark.parametrize("where", ["upgrade_url", "url"])
async def test_websockets_need_the_two_headers(site: Site, where: str) -> None:
    site.stack.call("POST", "/api/v1/instances/talker/start?wait=60")
    trust = ssl.create_default_context(cafile=str(site.certificate))
    url = getattr(site, where) + "/api/v1/instances/talker/proxy/ws"
    headers = {"Authorization": f"Bearer {site.stack.management_key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        if where == "url":
            # Without them the handshake is a plain GET: refused, not left open.
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(url, ssl=trust)
            return
        async with session.ws_connect(url, ssl=trust) as socket:
            await socket.send_str("hello")
            assert (await socket.receive(30)).data == "hello"


def test_a_proxy_may_leave_the_prefix_in_the_path(site: Site) -> None:
    url = site.whole_path_url
    assert site.management().get(f"{url}/api/v1/instances").json()[0]["name"] == "talker"
    assert site.session().get(f"{url}/admin/login/").status_code == 200
    assert site.session().get(f"{url}/static/css/admin.css").status_code == 200
    key = {"Authorization": f"Bearer {site.stack.new_key()}"}
    models = site.session().get(f"{url}/v1/models", headers=key)
    assert [model["id"] for model in models.json()["data"]] == ["talker"]


def test_without_the_proxy_the_api_and_the_admin_are_where_they_were(site: Site) -> None:
    assert site.stack.call("GET", "/api/v1/instances").json()[0]["name"] == "talker"
    page = requests.get(f"{site.stack.url}/admin/", timeout=30)
    assert page.status_code == 200
    assert page.url.startswith(f"{site.stack.url}/llm/admin/login/")


def test_the_start_tells_the_public_url(site: Site) -> None:
    output = site.stack.output.read_text()
    assert f"{site.url}/admin/" in output
    assert f"by the reverse proxy; listens on 127.0.0.1:{site.stack.port}" in output
