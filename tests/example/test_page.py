"""A person in a real Chromium: keeps notes, and has an account with all that belongs to one."""

import time
from collections.abc import Iterator
from pathlib import Path

import pyotp
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions

from tests.conftest import PASSWORD, SHOEBOX, Server, User, free_port, mail_to, serving, token_in
from tests.kit.browser import Person, complaints, opened


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with opened(tmp_path) as browser:
        yield browser


def test_a_person_uses_shoebox(shoebox: Server, chromium: webdriver.Chrome) -> None:
    person = Person(chromium)
    chromium.get(shoebox.url)
    person.waits_for("body.signed-out")
    assert chromium.title == "Shoebox"
    person.enters("#login-tab", "person@example.com", PASSWORD)
    person.wait(lambda _: any(person.texts("#auth-error")))
    person.enters("#signup-tab", "person@example.com", PASSWORD)
    person.waits_for("body.signed-in")
    person.clicks("#notes-tab")
    person.types("#note-text", "Buy <b>glue</b>\nand string")
    person.types("#note-tags", "home" + Keys.ENTER + "shop" + Keys.ENTER)
    person.clicks("#note-save")
    person.waits_for("article.note")
    assert person.texts(".note-text") == ["Buy <b>glue</b>\nand string"]
    assert {"home", "shop"} <= {text.split()[0].strip("#") for text in person.texts(".tag") if text}
    person.clicks(".note-edit")
    person.types(".note-form textarea", "Bought")
    person.clicks(".note-keep")
    person.wait(lambda _: person.texts(".note-text") == ["Bought"])
    chromium.refresh()
    person.wait(lambda _: person.texts(".note-text") == ["Bought"])
    person.clicks(".note-delete")
    person.clicks("#confirm-yes")
    person.wait(lambda _: not person.sees("article.note"))
    person.clicks("#logout")
    person.waits_for("body.signed-out")
    assert {each["name"] for each in chromium.get_cookies()} <= {"shoebox-device"}
    person.enters("#login-tab", "Person@Example.com", PASSWORD)
    person.waits_for("body.signed-in")
    assert not complaints(chromium)


def test_session_that_ended_elsewhere(shoebox: Server, chromium: webdriver.Chrome) -> None:
    """The page asks for the password again, and keeps what was typed."""
    person = Person(chromium)
    chromium.get(shoebox.url)
    person.enters("#signup-tab", "ended@example.com", PASSWORD)
    person.waits_for("body.signed-in")
    person.clicks("#notes-tab")
    chromium.delete_all_cookies()
    person.types("#note-text", "do not lose me")
    person.clicks("#note-save")
    person.waits_for("body.signed-out")
    person.enters("#login-tab", "ended@example.com", PASSWORD)
    person.waits_for("body.signed-in")
    assert chromium.find_element(By.ID, "note-text").get_attribute("value") == "do not lose me"


def test_the_life_of_an_account(tmp_path: Path, chromium: webdriver.Chrome) -> None:
    """Signed up, verified by the mail's link, password forgotten and set anew, sessions seen, account destroyed."""
    who, new = "life@example.com", "a password set anew"
    with serving(SHOEBOX, tmp_path / "server", settings={"verify_email": True}) as server:
        person = Person(chromium)
        chromium.get(server.url)
        person.enters("#signup-tab", who, PASSWORD)
        person.waits_for("#auth-notice")
        chromium.get(f"{server.url}/#verify={token_in(mail_to(server, who), 'verify')}")
        person.waits_for("#verify")
        assert "verify=" not in chromium.current_url
        person.types("#verify-password", "not the password")
        person.clicks("#verify-enter")
        person.reads("#verify-error", "signed up")
        person.types("#verify-password", PASSWORD)
        person.clicks("#verify-enter")
        person.wait(lambda _: any("verified" in text for text in person.texts("#auth-notice")))
        person.types("#password", "a guess")
        person.clicks("#forgot")
        assert not chromium.find_element(By.ID, "password").get_attribute("value")
        person.types("#recover-email", who)
        person.clicks("#recover-enter")
        chromium.get(f"{server.url}/#reset={token_in(mail_to(server, who, 2), 'reset')}")
        person.types("#reset-password", new)
        person.clicks("#reset-enter")
        person.enters("#login-tab", who, new)
        person.waits_for("body.signed-in")
        person.opens_account()
        assert len(person.texts("#sessions li")) == 1

        person.clicks("#second-steps li:first-child button")
        person.proves("not the password")
        person.reads("#prove-error", "not right")
        person.proves(new)
        person.wait(lambda _: chromium.execute_script("return document.getElementById('totp-qr').naturalWidth > 0"))
        secret = chromium.find_element(By.ID, "totp-secret").text.replace(" ", "")
        assert f"secret={secret}" in (chromium.find_element(By.ID, "totp-uri").get_attribute("href") or "")
        person.types("#totp-code", "000000")
        person.clicks("#totp-enter")
        person.reads("#totp-confirm-error", "not right")
        person.types("#totp-code", pyotp.TOTP(secret).now())
        person.clicks("#totp-enter")
        person.waits_for("#codes-kept")
        recovery = person.texts("#codes-list li")
        assert len(recovery) == 10
        person.clicks("#codes-kept")
        person.reads("#second-steps", "10 left")

        person.logs_out()
        person.enters("#login-tab", who, new)
        person.waits_for("#second-code")
        assert not person.sees("#second-passkey button")
        person.types("#second-code", "000000")
        person.clicks("#second .primary")
        person.reads("#second-error", "not right")
        person.clicks("#second-other")
        person.types("#second-code", recovery[0].upper())
        person.clicks("#second .primary")
        person.waits_for("body.signed-in")
        person.opens_account()
        person.reads("#second-steps", "9 left")

        person.logs_out()
        with User(server) as elsewhere:  # what a provider's way back would bring
            second = elsewhere.post("/auth/login", json={"email": who, "password": new}).json()
        chromium.get(f"{server.url}/#second={second['ticket']}&factors={','.join(second['factors'])}")
        person.waits_for("#second-code")
        assert second["ticket"] not in chromium.current_url
        person.types("#second-code", pyotp.TOTP(secret).at(int(time.time()) + 30))  # the one of now has served
        person.clicks("#second .primary")
        person.waits_for("body.signed-in")

        person.opens_account()
        person.clicks("#second-steps li:first-child button")
        person.proves(new)
        person.reads("#second-steps", "Off.")
        person.clicks("#destroy")
        person.proves(new)
        person.waits_for("body.signed-out")
        person.enters("#login-tab", who, new)
        person.wait(lambda _: any(person.texts("#auth-error")))
        assert not complaints(chromium)


def test_a_passkey(shoebox: Server, chromium: webdriver.Chrome) -> None:
    """Added, used alone, used after the password, removed; at an IP address there are none."""
    who = "key@example.com"
    person = Person(chromium)
    chromium.get(shoebox.url)
    person.clicks("#login-tab")
    person.reads("#passkey-reason", "IP address")
    assert not person.sees("#passkey-login button")

    device = VirtualAuthenticatorOptions(
        transport=VirtualAuthenticatorOptions.Transport.INTERNAL,
        has_resident_key=True,
        has_user_verification=True,
        is_user_verified=True,
    )
    chromium.add_virtual_authenticator(device)
    chromium.get(shoebox.url.replace("127.0.0.1", "localhost"))
    person.enters("#signup-tab", who, PASSWORD)
    person.waits_for("body.signed-in")
    person.opens_account()
    person.clicks("#passkey-add")
    person.types("#prove-name", "My thumb")
    person.proves()
    person.waits_for("#codes-kept")
    recovery = person.texts("#codes-list li")
    person.clicks("#codes-kept")
    person.reads("#passkeys", "My thumb")
    person.reads("#passkeys", "never used")

    person.logs_out()
    person.clicks("#passkey-login button")
    person.waits_for("body.signed-in")
    person.logs_out()
    person.enters("#login-tab", who, PASSWORD)
    person.clicks("#second-passkey button")
    person.waits_for("body.signed-in")
    person.logs_out()
    person.enters("#login-tab", who, PASSWORD)
    person.types("#second-code", recovery[0])
    person.clicks("#second .primary")
    person.waits_for("body.signed-in")

    person.opens_account()
    person.reads("#passkeys", "used just now")
    person.clicks("#passkeys button")
    person.proves()
    person.wait(lambda _: not person.texts("#passkeys li"))
    person.logs_out()
    person.clicks("#passkey-login button")
    person.reads("#passkey-login-error", "known here")
    person.enters("#login-tab", who, PASSWORD)
    person.waits_for("body.signed-in")
    assert not complaints(chromium)


def test_a_provider(tmp_path: Path, chromium: webdriver.Chrome) -> None:
    """A button for each; what went wrong there is said. The way through it is in test_openid.py."""
    gone = {"issuer": f"http://127.0.0.1:{free_port()}", "client_id": "x", "name": "Elsewhere"}
    with serving(SHOEBOX, tmp_path / "server", settings={"providers": {"gone": gone}}) as server:
        person = Person(chromium)
        chromium.get(server.url)
        person.reads("#providers button", "Continue with Elsewhere")
        person.clicks("#providers button")
        person.reads("#providers-error", "be reached")
        chromium.get(f"{server.url}/#openid=denied")
        person.reads("#auth-notice", "let nobody in")
        assert "openid=" not in chromium.current_url


@pytest.mark.parametrize(("width", "height"), [(380, 800), (1280, 900)])
def test_nothing_overflows(shoebox: Server, chromium: webdriver.Chrome, width: int, height: int) -> None:
    person = Person(chromium)
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)  # a window is 500 wide at least
    chromium.get(shoebox.url)
    fits = "return [document.documentElement, ...document.querySelectorAll('dialog[open]')]"
    fits += ".every((part) => part.scrollWidth <= part.clientWidth)"
    person.waits_for("body.signed-out")
    assert chromium.execute_script(fits)
    person.enters("#signup-tab", f"a.rather.long.address.of.somebody.{width}@example.com", PASSWORD)
    person.waits_for("body.signed-in")
    assert chromium.execute_script(fits)
    person.opens_account()
    assert chromium.execute_script(fits)
    person.clicks("#second-steps li:first-child button")
    person.proves()
    person.waits_for("#totp-code")
    assert chromium.execute_script(fits)
    person.types("#totp-code", pyotp.TOTP(chromium.find_element(By.ID, "totp-secret").text.replace(" ", "")).now())
    person.clicks("#totp-enter")
    person.waits_for("#codes-kept")
    assert chromium.execute_script(fits)
    person.clicks("#codes-kept")
    person.waits_for("#toast.open")
    person.clicks("#account-close")  # the toast does not cover it
    person.wait(lambda _: not person.sees("#account-dialog"))


def test_the_account_hides_no_field(shoebox: Server, chromium: webdriver.Chrome) -> None:
    """Neither what is wrong with it, however one comes there, on a phone."""
    size = {"width": 380, "height": 560, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    person = Person(chromium)
    chromium.get(shoebox.url)
    person.enters("#signup-tab", "fields@example.com", PASSWORD)
    person.opens_account()
    shown = """
        const of = (part) => part.getBoundingClientRect();
        const low = of(document.querySelector(".account-head")).bottom;
        const high = of(document.querySelector("dialog[open]")).bottom;
        const parts = [document.activeElement, ...document.querySelectorAll("dialog[open] [role=alert]:not([hidden])")];
        return parts.every((part) => of(part).top >= low && of(part).bottom <= high);
    """
    forms = {"#new-password": "#password-change", "#new-email": "#email-change"}
    for field, button in forms.items():
        person.types("#old-password", "long enough")
        person.types(field, "bad")
        person.clicks(button)
        person.wait(lambda _: chromium.execute_script(shown))
        chromium.execute_script("document.querySelectorAll('dialog form').forEach((form) => form.reset())")
    chromium.execute_script("document.getElementById('destroy').focus()")
    for _ in range(6):
        ActionChains(chromium).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
        name = "return document.activeElement.id"
        assert chromium.execute_script(shown.replace("[role=alert]", "none")), chromium.execute_script(name)
