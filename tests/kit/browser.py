"""A real Chromium, and a person who uses it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.conftest import PASSWORD


@contextlib.contextmanager
def opened(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own, closed at the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
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
        redrawn = [StaleElementReferenceException]  # the element has been replaced: look again
        WebDriverWait(self.browser, 10, ignored_exceptions=redrawn).until(condition)

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

    def reads(self, selector: str, words: str) -> None:
        """Waits until the words are there."""
        self.wait(lambda _: any(words in text for text in self.texts(selector)))

    def proves(self, password: str = PASSWORD) -> None:
        """Types the password again, where the page asks for it."""
        self.types("#prove-password", password)
        self.clicks("#prove-yes")

    def opens_account(self) -> None:
        self.clicks("#account")
        self.waits_for("#second-steps li")

    def logs_out(self) -> None:
        if self.sees("#account-close"):
            self.clicks("#account-close")
        self.clicks("#logout")
        self.waits_for("body.signed-out")

    def enters(self, tab: str, email: str, password: str) -> None:
        self.clicks(tab)
        self.types("#email", email)
        self.types("#password", password)
        self.clicks("#enter")


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the console says, except refusals that belong to the test."""
    said = (each["message"] for each in browser.get_log("browser"))
    return [each for each in said if "status of 403" not in each and "status of 415" not in each]
