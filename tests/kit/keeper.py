"""A person with pictures, before a real Chromium."""

from pathlib import Path

from selenium.webdriver.common.by import By

from tests.kit.browser import Person


class Keeper(Person):
    """A person with pictures."""

    def brings(self, *paths: Path) -> None:
        """By the dialog for files."""
        self.browser.find_element(By.ID, "picture-files").send_keys("\n".join(map(str, paths)))

    def drops(self, *paths: Path) -> None:
        """By dragging them onto the page: events of the browser itself."""
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            drag = {"type": kind, "x": 300, "y": 500, "data": data}
            self.browser.execute_cdp_cmd("Input.dispatchDragEvent", drag)

    def names(self, grid: str = "#grid") -> list[str]:
        """Of the pictures that show, and whose thumbnail is there."""
        images = self.browser.find_elements(By.CSS_SELECTOR, f"{grid} img")
        for image in images:
            self.browser.execute_script("arguments[0].scrollIntoView()", image)
            self.wait(lambda _, each=image: self.browser.execute_script("return arguments[0].naturalWidth > 0", each))
        return [image.get_attribute("alt") or "" for image in images]

    def sees_pictures(self, number: int, grid: str = "#grid") -> None:
        self.wait(lambda _: len(self.browser.find_elements(By.CSS_SELECTOR, f"{grid} .tile")) == number)

    def ticks(self, grid: str, *places: int) -> None:
        self.wait(lambda _: len(self.browser.find_elements(By.CSS_SELECTOR, f"{grid} .tick input")) > max(places))
        for box in [self.browser.find_elements(By.CSS_SELECTOR, f"{grid} .tick input")[place] for place in places]:
            self.browser.execute_script("arguments[0].click()", box)

    def presses(self, key: str) -> None:
        self.browser.switch_to.active_element.send_keys(key)
