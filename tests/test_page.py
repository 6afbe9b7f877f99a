"""A person in a real Chromium: signs up, keeps a note, edits and deletes it, logs out and in again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.conftest import PASSWORD, SHOEBOX, Server, mail_to, serving, token_in


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}",
        "--window-size=1280,900",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield browser
    finally:
        browser.quit()


class Person:
    """What a person sees and does on the page."""

    def __init__(self, browser: webdriver.Chrome):
        self.browser = browser

    def wait(self, condition: object) -> None:
        WebDriverWait(self.browser, 10).until(condition)

    def sees(self, selector: str) -> bool:
        return any(each.is_displayed() for each in self.browser.find_elements(By.CSS_SELECTOR, selector))

    def waits_for(self, selector: str) -> None:
        self.wait(lambda _: self.sees(selector))

    def clicks(self, selector: str) -> None:
        self.waits_for(selector)
        self.browser.find_element(By.CSS_SELECTOR, selector).click()

    def types(self, selector: str, text: str) -> None:
        self.waits_for(selector)
        field = self.browser.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(text)

    def texts(self, selector: str) -> list[str]:
        return [each.text for each in self.browser.find_elements(By.CSS_SELECTOR, selector)]

    def enters(self, tab: str, email: str, password: str) -> None:
        self.clicks(tab)
        self.types("#email", email)
        self.types("#password", password)
        self.clicks("#enter")


def test_a_person_uses_shoebox(shoebox: Server, chromium: webdriver.Chrome) -> None:
    person = Person(chromium)
    chromium.get(shoebox.url)
    person.waits_for("body.signed-out")
    assert chromium.title == "Shoebox"
    person.enters("#login-tab", "person@example.com", PASSWORD)
    person.wait(lambda _: any(person.texts("#auth-error")))
    person.enters("#signup-tab", "person@example.com", PASSWORD)
    person.waits_for("body.signed-in")
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
    assert not chromium.get_cookies()
    person.enters("#login-tab", "Person@Example.com", PASSWORD)
    person.waits_for("body.signed-in")
    errors = [each["message"] for each in chromium.get_log("browser") if "status of 403" not in each["message"]]
    assert not errors, errors


def test_session_that_ended_elsewhere(shoebox: Server, chromium: webdriver.Chrome) -> None:
    """The page asks for the password again, and keeps what was typed."""
    person = Person(chromium)
    chromium.get(shoebox.url)
    person.enters("#signup-tab", "ended@example.com", PASSWORD)
    person.waits_for("body.signed-in")
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
        person.wait(lambda _: any("verified" in text for text in person.texts("#auth-notice")))
        assert "verify=" not in chromium.current_url
        person.clicks("#login-tab")
        person.clicks("#forgot")
        person.types("#recover-email", who)
        person.clicks("#recover-enter")
        chromium.get(f"{server.url}/#reset={token_in(mail_to(server, who, 2), 'reset')}")
        person.types("#reset-password", new)
        person.clicks("#reset-enter")
        person.enters("#login-tab", who, new)
        person.waits_for("body.signed-in")
        person.clicks("#account")
        person.waits_for("#sessions li")
        assert len(person.texts("#sessions li")) == 1
        person.types("#destroy-password", new)
        person.clicks("#destroy")
        person.clicks("#confirm-yes")
        person.waits_for("body.signed-out")
        person.enters("#login-tab", who, new)
        person.wait(lambda _: any(person.texts("#auth-error")))


@pytest.mark.parametrize(("width", "height"), [(380, 800), (1280, 900)])
def test_nothing_overflows(shoebox: Server, chromium: webdriver.Chrome, width: int, height: int) -> None:
    chromium.set_window_size(width, height)
    chromium.get(shoebox.url)
    Person(chromium).waits_for("body.signed-out")
    assert chromium.execute_script("return document.documentElement.scrollWidth <= innerWidth")
