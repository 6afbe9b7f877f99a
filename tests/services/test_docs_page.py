"""The page of the routes: what a browser is told, who gets it, and a person who tries routes in a real Chromium."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from backlore.web.static import POLICY
from tests.conftest import PASSWORD, SHOEBOX, Server, User, developer, serving
from tests.kit.browser import Person, complaints, opened

FOREIGN = [
    ("a proxy tells of another", {"x-forwarded-for": "203.0.113.5"}),
    ("the other header of proxies", {"forwarded": "for=203.0.113.5"}),
    ("a name turned to loopback", {"host": "evil.example:8000"}),
    ("an address of the network", {"host": "192.168.1.2:8000"}),
]
FILES = {"/docs": "text/html", "/docs/style.css": "text/css", "/docs/script.js": "text/javascript"}


def test_what_a_browser_is_told(shoebox: Server) -> None:
    with developer(shoebox) as browser:
        for path, kind in FILES.items():
            answer = browser.get(path)
            assert answer.status_code == 200 and answer.headers["content-type"] == f"{kind}; charset=utf-8"
            assert answer.headers["cache-control"] == "no-store" and answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert browser.head(path).status_code == 200
        page = browser.get("/docs")
        assert page.headers["content-security-policy"] == POLICY[1].decode()
        assert not re.search(r"<style| style=| on\w+=|<script>|https?:", page.text)
        assert "innerHTML" not in browser.get("/docs/script.js").text


@pytest.mark.parametrize(("what", "headers"), FOREIGN, ids=[row[0] for row in FOREIGN])
def test_strangers_see_nothing(shoebox: Server, what: str, headers: dict[str, str]) -> None:
    for path in FILES:
        for given in (path, f"{path}?key={shoebox.key()}"):
            answer = httpx.get(shoebox.url + given, headers=headers)
            assert (answer.status_code, answer.json()) == (404, {"error": "route"})
            assert "set-cookie" not in answer.headers


def test_only_who_has_the_key(shoebox: Server) -> None:
    """A plain proxy or tunnel looks like this machine: what it lacks is the URL that the terminal printed."""
    key = shoebox.key()
    assert re.search(rf"^docs +{shoebox.url}/docs\?key={key}$", shoebox.said(), re.MULTILINE) and len(key) >= 32
    wrong = [{}, {"key": ""}, {"key": key[:-1]}, {"key": key + "0"}, {"key": "\xff"}, {"Key": key}]
    tampered = ["", f"shoebox-dev={key[:-1]}", f"other={key}", f"x=shoebox-dev={key}", f"shoebox-dev={key} x", "\xff"]
    for path in ("/docs", "/docs/script.js", "/outbox", "/outbox/style.css", "/outbox/any.eml"):
        for query in wrong:
            answer = httpx.get(shoebox.url + path, params=query)
            assert (answer.status_code, answer.json()["error"]) == (403, "key") and "set-cookie" not in answer.headers
        for cookie in tampered:
            answer = httpx.get(shoebox.url + path, headers=[(b"cookie", cookie.encode("latin-1"))])
            assert answer.status_code == 403
    given = httpx.get(f"{shoebox.url}/outbox", params={"key": key})
    assert given.status_code == 303 and given.headers["location"] == "/outbox" and key not in given.text
    assert given.headers["set-cookie"] == f"shoebox-dev={key}; Path=/; HttpOnly; SameSite=Strict"
    assert given.headers["cache-control"] == "no-store"
    cookie = given.headers["set-cookie"].partition(";")[0]
    for others in (cookie, f"a=b; {cookie}", f"shoebox-dev=old; {cookie}; c=d"):
        assert httpx.get(f"{shoebox.url}/outbox", headers={"cookie": others}).status_code == 200
    # said once for each page, by the terminal alone
    assert shoebox.said().count(key) == 2
    shoebox.process.send_signal(signal.SIGHUP)
    shoebox.wait_said("master.reloaded", 30)
    assert httpx.get(f"{shoebox.url}/outbox", headers={"cookie": cookie}).status_code == 200


def test_not_in_prod(tmp_path: Path) -> None:
    with serving(SHOEBOX, tmp_path, workers=1, env="prod") as server:
        for path in FILES:
            answer = httpx.get(server.url + path)
            assert (answer.status_code, answer.json()) == (404, {"error": "route"})
        assert not set(FILES) & set(httpx.get(f"{server.url}/openapi.json").json()["paths"])


class Reader(Person):
    """A person at the page of the routes."""

    def opens(self, server: Server, fragment: str = "") -> None:
        self.browser.get(f"{server.url}/docs?key={server.key()}{fragment}")
        assert self.browser.current_url == f"{server.url}/docs{fragment}"
        self.waits_for("#stages section")

    def route(self, name: str) -> WebElement:
        return self.browser.find_element(By.ID, name)

    def tries(self, name: str, **typed: str) -> tuple[str, str]:
        """Opens a route, fills fields, sends; status and body of the reply."""
        route = self.route(name)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", route)
        if not route.get_attribute("open"):
            route.find_element(By.TAG_NAME, "summary").click()
        for field, text in typed.items():
            control = route.find_element(By.CSS_SELECTOR, f"[name$=' {field}']")
            if control.get_attribute("type") != "file":
                control.clear()
            control.send_keys(text)
        before = route.find_element(By.CSS_SELECTOR, ".answer")
        self.browser.execute_script("arguments[0].hidden = true", before)
        route.find_element(By.CSS_SELECTOR, ".send").click()
        self.wait(lambda _: before.is_displayed())
        told = [before.find_element(By.CSS_SELECTOR, part).text for part in (".status", ".content")]
        return told[0], told[1]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with opened(tmp_path / "chromium") as chromium:
        yield Reader(chromium)
        assert not [said for said in complaints(chromium) if "status of 4" not in said]


def test_a_person_tries_routes(shoebox: Server, reader: Reader) -> None:
    with User(shoebox, "reader@example.com") as user:
        user.sign_up()
    reader.opens(shoebox)
    assert reader.browser.title == "shoebox: routes"
    assert reader.texts("#stages h2") == ["public", "auth", "private", "admin"]
    reader.reads("#who", "Not logged in")
    status, body = reader.tries("post-/notes")
    assert status == "403 Forbidden" and json.loads(body) == {"error": "nocookie"}
    login = {"email": "reader@example.com", "password": PASSWORD}
    assert reader.tries("post-/auth/login", body=json.dumps(login))[0] == "200 OK"
    reader.reads("#who", "reader@example.com")
    # prefilled by an example that is valid
    assert json.loads(reader.route("post-/notes").find_element(By.TAG_NAME, "textarea").get_attribute("value") or "")
    status, body = reader.tries("post-/notes")
    assert status == "200 OK" and json.loads(body) == {"id": 1}
    markup = {"text": "<b>bold</b>", "tags": ["a&b"]}
    assert json.loads(reader.tries("post-/notes", body=json.dumps(markup))[1]) == {"id": 2}
    status, body = reader.tries("get-/notes/{id}", id="2")
    assert status == "200 OK" and json.loads(body)["text"] == "<b>bold</b>"
    answer = reader.route("get-/notes/{id}").find_element(By.CSS_SELECTOR, ".answer")
    assert re.fullmatch(r"[\d.]+ ms, \d+ bytes", answer.find_element(By.CSS_SELECTOR, ".time").text)
    answer.find_element(By.TAG_NAME, "summary").click()
    assert "content-type: application/json" in answer.find_element(By.CSS_SELECTOR, ".headers").text
    # what is optional and left empty is not sent
    assert len(json.loads(reader.tries("get-/notes")[1])["notes"]) == 2
    assert len(json.loads(reader.tries("get-/notes", tag="a&b")[1])["notes"]) == 1
    assert reader.tries("post-/notes", body="{")[0] == "400 Bad Request"
    assert reader.tries("post-/notes/{id}/delete", id="1")[0] == "200 OK"
    assert reader.tries("post-/notes/{id}/delete", id="1")[0] == "404 Not Found"
    assert reader.tries("post-/auth/logout")[0] == "200 OK"
    reader.reads("#who", "Not logged in")


def test_keyboard_and_filter(shoebox: Server, reader: Reader) -> None:
    reader.opens(shoebox, "#post-%2Fnotes")
    assert reader.sees("[id='post-/notes'] .send")
    reader.browser.find_element(By.TAG_NAME, "body").send_keys("/")
    field = reader.browser.switch_to.active_element
    assert field.get_attribute("id") == "filter" and not field.get_attribute("value")
    field.send_keys("notes post")
    shown = [text for text in reader.texts("#stages .path") if text]
    assert shown == ["/notes", "/notes/{id}", "/notes/{id}/delete"]
    assert [text for text in reader.texts("#stages h2") if text] == ["private"]
    assert reader.texts("#count") == [f"3 of {len(reader.texts('#stages .path'))} routes"]
    field.send_keys(" nothing")
    assert reader.sees("#none")
    field.clear()
    field.send_keys("get /files/usage")
    # the next stop is the route; enter opens it, tab leads to its button
    field.send_keys(Keys.TAB)
    summary = reader.browser.switch_to.active_element
    assert summary.tag_name == "summary" and "/files/usage" in summary.text
    summary.send_keys(Keys.ENTER)
    reader.waits_for("[id='get-/files/usage'] .send")
    summary.send_keys(Keys.TAB)
    reader.browser.switch_to.active_element.send_keys(Keys.ENTER)
    reader.reads("[id='get-/files/usage'] .status", "403")


def test_on_a_phone_by_night(shoebox: Server, reader: Reader) -> None:
    wide = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    reader.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", wide)
    night = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    reader.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", night)
    reader.opens(shoebox)
    for name in ("post-/notes", "get-/notes", "post-/auth/signup", "get-/admin/users"):
        reader.tries(name)
    assert reader.browser.execute_script("return document.documentElement.scrollWidth") == 360
    color = reader.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", color)[:3])) < 200


def test_every_kind_of_payload(kinds: Server, reader: Reader) -> None:
    """Each route of an application with all kinds of types can be opened, with an example or fields to fill."""
    reader.opens(kinds)
    reader.browser.execute_script("for (const each of document.querySelectorAll('#stages details')) each.open = true")
    for area in reader.browser.find_elements(By.TAG_NAME, "textarea"):
        json.loads(area.get_attribute("value") or "")
    document = httpx.get(f"{kinds.url}/openapi.json").json()
    count = sum(len(each) for each in document["paths"].values())
    assert len(reader.browser.find_elements(By.CSS_SELECTOR, "#stages > section > details")) == count
