"""Passkeys by a real Chromium with a virtual authenticator."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.virtual_authenticator import Protocol, Transport, VirtualAuthenticatorOptions

from tests.conftest import KINDS, PASSWORD, Server, mail_to, serving
from tests.kit.authenticator import MANY
from tests.kit.browser import opened


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with opened(tmp_path) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KINDS, tmp_path_factory.mktemp("passkeys"), settings={"rates": MANY}) as made:
        yield made


CREATE = """
const [options, done] = arguments
const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options)
navigator.credentials.create({publicKey}).then(made => done(made.toJSON()), error => done({error: error.name}))
"""
GET = """
const [options, done] = arguments
const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options)
navigator.credentials.get({publicKey}).then(shown => done(shown.toJSON()), error => done({error: error.name}))
"""
POST = """
const [path, body, csrf, done] = arguments
const headers = {"content-type": "application/json", "x-csrf-token": csrf}
fetch(path, {method: "POST", headers, body: JSON.stringify(body)})
    .then(async got => done([got.status, await got.json()]))
"""


class Page:
    """What a page of ours does in the browser."""

    def __init__(self, browser: webdriver.Chrome, server: Server):
        self.browser = browser
        self.csrf = ""
        browser.get(f"http://localhost:{server.port}/health")
        self.plug_in(verifies=True)

    def plug_in(self, verifies: bool) -> None:
        """An authenticator that verifies its user, or can't."""
        virtual = VirtualAuthenticatorOptions(
            protocol=Protocol.CTAP2,
            transport=Transport.INTERNAL,
            has_resident_key=True,
            has_user_verification=verifies,
            is_user_verified=verifies,
        )
        self.browser.add_virtual_authenticator(virtual)

    def swap(self, verifies: bool) -> None:
        """The same passkeys in another authenticator."""
        credentials = self.browser.get_credentials()
        self.browser.remove_virtual_authenticator()
        self.plug_in(verifies)
        for each in credentials:
            self.browser.add_credential(each)

    def post(self, path: str, body: dict, status: int = 200) -> dict:
        got, reply = self.browser.execute_async_script(POST, path, body, self.csrf)
        assert got == status, (path, got, reply)
        self.csrf = reply.get("csrf", self.csrf)
        return reply

    def create(self, options: dict) -> dict:
        return self.browser.execute_async_script(CREATE, options)

    def get(self, options: dict) -> dict:
        return self.browser.execute_async_script(GET, options)

    def log_out(self) -> None:
        self.post("/auth/logout", {})
        self.csrf = ""


def test_a_browser_lives_with_passkeys(server: Server, chromium: webdriver.Chrome) -> None:
    """Registered; a login of its own; the second factor of a password; of no use when it was removed."""
    page, login = Page(chromium, server), {"email": "browser@example.com", "password": PASSWORD}
    page.post("/auth/signup", login)
    page.post("/auth/login", login)
    page.post("/auth/passkeys/begin", {"password": "a wrong one"}, 403)
    made = page.create(page.post("/auth/passkeys/begin", {"password": PASSWORD})["options"])
    assert made["response"]["transports"] == ["internal"]
    assert len(page.post("/auth/passkeys/add", {"credential": made, "name": "Laptop"})["recoveryCodes"]) == 10
    assert 'the passkey "Laptop" was added' in " ".join(mail_to(server, login["email"]).split())
    again = page.post("/auth/passkeys/begin", {"password": PASSWORD})["options"]
    assert page.create(again) == {"error": "InvalidStateError"}  # it is excluded
    page.log_out()

    alone = page.post("/auth/passkey/options", {})["options"]
    assert "allowCredentials" not in alone and alone["userVerification"] == "required"
    shown = page.get(alone)
    page.post("/auth/passkey", {"credential": shown})
    assert page.browser.execute_async_script("fetch('/who').then(got => got.json()).then(arguments[0])") == {
        "email": login["email"]
    }
    page.log_out()
    assert page.post("/auth/passkey", {"credential": shown}, 403) == {"error": "passkey"}

    page.swap(verifies=False)
    assert page.get(page.post("/auth/passkey/options", {})["options"]) == {"error": "NotAllowedError"}
    second = page.post("/auth/login", login, 403)
    assert second["error"] == "second" and second["factors"] == ["passkey"]
    asked = page.post("/auth/passkey/options", {"ticket": second["ticket"]})["options"]
    assert asked["allowCredentials"] == [{"type": "public-key", "id": made["id"], "transports": ["internal"]}]
    page.post("/auth/passkey", {"credential": page.get(asked), "ticket": second["ticket"]})

    page.post("/auth/passkeys/remove", {"id": made["id"], "password": "a wrong one"}, 403)
    page.post("/auth/passkeys/remove", {"id": made["id"], "password": PASSWORD})
    page.post("/auth/passkeys/remove", {"id": made["id"], "password": PASSWORD}, 404)
    assert 'the passkey "Laptop" was removed' in " ".join(mail_to(server, login["email"], 2).split())
    page.log_out()
    page.swap(verifies=True)
    removed = page.get(page.post("/auth/passkey/options", {})["options"])
    assert page.post("/auth/passkey", {"credential": removed}, 403) == {"error": "passkey"}
    page.post("/auth/login", login)  # there is no second factor any more
