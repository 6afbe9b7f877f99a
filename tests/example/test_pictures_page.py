"""A person and pictures, in a real Chromium: brought, looked at, had back after everything was killed."""

import contextlib
import io
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.conftest import PASSWORD, SHOEBOX, Server, serving
from tests.kit.bombs import png
from tests.kit.browser import complaints, opened
from tests.kit.keeper import Keeper


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with opened(tmp_path / "profile") as browser:
        yield browser


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Twelve, each another."""
    folder = tmp_path / "camera"
    folder.mkdir()
    chance = random.Random(3)
    made = []
    for number in range(12):
        small = Image.frombytes("RGB", (8, 6), chance.randbytes(8 * 6 * 3))
        made.append(folder / f"IMG_{number}.jpg")
        small.resize((640, 480)).save(made[-1])
    return made


def test_pictures_are_there_after_everything_was_killed(
    tmp_path: Path, chromium: webdriver.Chrome, pictures: list[Path]
) -> None:
    (tmp_path / "camera" / "bomb.png").write_bytes(png(20_000, 20_000))
    with serving(SHOEBOX, tmp_path / "server") as server:
        person = Keeper(chromium)
        chromium.get(server.url)
        person.enters("#signup-tab", "ann@example.com", PASSWORD)
        person.waits_for("#pictures-empty")
        person.brings(*pictures[:6])
        person.drops(*pictures[6:], tmp_path / "camera" / "bomb.png")
        person.sees_pictures(12)
        person.reads("#uploads-list .failed", "more than 64 million pixels")
        assert sorted(person.names()) == sorted(path.name for path in pictures)
        person.clicks("#uploads-clear")
        person.wait(lambda _: not person.sees("#uploads"))

        before = server.workers()
        for each in before:
            each.kill()
        psutil.wait_procs(before, 10)
        person.wait(lambda _: len(server.workers()) == 2)
        server.engine().kill()
        family = [psutil.Process(server.process.pid), *server.family()]
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has followed the master by itself
                each.kill()
        server.process.wait(10)
        psutil.wait_procs(family, 10)
        server.log.unlink()
        server.start()
        chromium.refresh()
        person.sees_pictures(12)
        assert sorted(person.names()) == sorted(path.name for path in pictures)

        person.ticks("#grid", 0, 2, 3)
        person.reads("#picture-bar p", "3 selected")
        person.clicks("#picture-bar [data-act=delete]")
        person.sees_pictures(9)
        person.clicks("#trash-tab")
        person.sees_pictures(3, "#trash")
        gone = person.names("#trash")
        person.ticks("#trash", 0, 1)
        person.clicks("#trash-bar [data-act=back]")
        person.sees_pictures(1, "#trash")
        person.ticks("#trash", 0)
        person.clicks("#trash-bar [data-act=erase]")
        person.clicks("#confirm-yes")
        person.waits_for("#trash-empty")
        person.clicks("#pictures-tab")
        person.sees_pictures(11)
        assert sorted(person.names()) == sorted({path.name for path in pictures} - {gone[2]})
        assert not complaints(chromium)


def test_one_picture_large_its_tags_and_many_as_a_zip(
    shoebox: Server, tmp_path: Path, chromium: webdriver.Chrome, pictures: list[Path]
) -> None:
    person = Keeper(chromium)
    chromium.get(shoebox.url)
    person.enters("#signup-tab", "zip@example.com", PASSWORD)
    person.waits_for("#pictures-empty")
    person.brings(*pictures[:4])
    person.sees_pictures(4)
    newest = person.names()

    person.clicks("#grid .face")
    person.reads("#lightbox-name", newest[0])
    person.presses(Keys.ARROW_RIGHT)
    person.reads("#lightbox-name", newest[1])
    person.wait(
        lambda _: chromium.execute_script("return document.getElementById('lightbox-image').naturalWidth") == 640
    )
    person.types("#lightbox-tags input", "hills" + Keys.ENTER)
    person.clicks("#lightbox-tags button.plain")
    person.reads("#toast p", "tags are kept")
    chromium.find_element(By.ID, "lightbox").send_keys(Keys.ESCAPE)
    person.wait(lambda _: not person.sees("#lightbox"))
    assert chromium.switch_to.active_element.find_element(By.TAG_NAME, "img").get_attribute("alt") == newest[1]
    person.presses(Keys.ARROW_RIGHT)
    assert chromium.switch_to.active_element.find_element(By.TAG_NAME, "img").get_attribute("alt") == newest[2]

    person.ticks("#grid", 2)
    person.types("#mark-tag", "hills" + Keys.ENTER)
    person.reads("#picture-tags .tag", "2")
    person.clicks("#picture-tags .tag")
    person.sees_pictures(2)
    assert "tag=hills" in chromium.current_url
    chromium.refresh()
    person.sees_pictures(2)

    folder = tmp_path / "downloads"
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    person.ticks("#grid", 0)
    person.clicks("#picture-bar [data-act=all]")
    person.clicks("#picture-bar [data-act=zip]")
    person.wait(lambda _: (folder / "hills.zip").exists())
    with zipfile.ZipFile(folder / "hills.zip") as archive:
        assert sorted(archive.namelist()) == sorted(newest[1:3]) and archive.testzip() is None
        assert archive.read(newest[1]) == next(path for path in pictures if path.name == newest[1]).read_bytes()
    person.sees_pictures(2)  # the page is still there
    assert not complaints(chromium)


def test_what_fails_says_why_and_can_be_tried_again(
    tmp_path: Path, chromium: webdriver.Chrome, pictures: list[Path]
) -> None:
    """A box that is full, and a server that is gone for a while."""
    room = sum(path.stat().st_size for path in pictures[:2]) + 2000  # less than a third has
    with serving(SHOEBOX, tmp_path / "server", settings={"files": {"quota": room}}) as server:
        person = Keeper(chromium)
        chromium.get(server.url)
        person.enters("#signup-tab", "full@example.com", PASSWORD)
        person.waits_for("#pictures-empty")
        person.brings(*pictures[:2])
        person.sees_pictures(2)
        person.brings(pictures[2])
        person.reads("#uploads-list .failed", "box is full")
        person.ticks("#grid", 0)
        person.clicks("#picture-bar [data-act=delete]")
        person.sees_pictures(1)
        person.clicks("#trash-tab")
        person.ticks("#trash", 0)
        person.clicks("#trash-bar [data-act=erase]")
        person.clicks("#confirm-yes")
        person.waits_for("#trash-empty")
        person.clicks("#pictures-tab")
        server.stop()
        person.clicks("#uploads-again")
        person.reads("#uploads-list .failed", "unreachable")
        server.log.unlink()
        server.start()
        person.clicks("#uploads-list .failed button")
        person.sees_pictures(2)
        person.wait(lambda _: not person.sees("#uploads"))


def test_nothing_overflows_on_a_phone(shoebox: Server, chromium: webdriver.Chrome, pictures: list[Path]) -> None:
    person = Keeper(chromium)
    size = {"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get(shoebox.url)
    person.enters("#signup-tab", "phone@example.com", PASSWORD)
    long = pictures[0].with_name("a-very-long-name-" * 12 + ".jpg")
    long.write_bytes(pictures[0].read_bytes())
    broken = pictures[0].with_name("broken-" * 12 + ".png")
    image = io.BytesIO()
    Image.new("L", (50, 50)).save(image, "PNG")
    broken.write_bytes(image.getvalue()[:-30])
    person.waits_for("#pictures-empty")
    person.brings(long, broken)
    person.sees_pictures(1)
    person.waits_for("#uploads-list .failed")
    person.ticks("#grid", 0)
    fits = "return [document.documentElement, ...document.querySelectorAll('dialog[open]')]"
    fits += ".every((part) => part.scrollWidth <= part.clientWidth)"
    assert chromium.execute_script(fits)
    person.clicks("#grid .face")
    person.waits_for("#lightbox[open]")
    assert chromium.execute_script(fits)


def test_what_was_done_can_be_undone_and_nothing_jumps(
    shoebox: Server, chromium: webdriver.Chrome, pictures: list[Path]
) -> None:
    person = Keeper(chromium)
    chromium.get(shoebox.url)
    person.enters("#signup-tab", "undo@example.com", PASSWORD)
    person.waits_for("#pictures-empty")
    person.reads("#usage-text", "0 bytes of")
    person.brings(*pictures[:3])
    person.sees_pictures(3)
    person.wait(lambda _: not person.sees("#uploads"))
    top = "return document.querySelector('#grid .tile').offsetTop"
    before = chromium.execute_script(top)
    person.ticks("#grid", 0)
    person.waits_for("#picture-bar")
    assert chromium.execute_script(top) == before

    person.types("#mark-tag", "two words" + Keys.ENTER)
    assert "one word" in chromium.execute_script("return document.getElementById('mark-tag').validationMessage")
    person.types("#mark-tag", "hills" + Keys.ENTER)
    person.reads("#picture-tags .tag", "hills")
    person.clicks("#toast-undo")
    person.wait(lambda _: not person.sees("#picture-tags .tag"))
    person.clicks("#picture-bar [data-act=delete]")
    person.sees_pictures(2)
    person.clicks("#toast-undo")
    person.sees_pictures(3)

    person.clicks("#grid .face")
    person.types("#lightbox-tags input", "two words" + Keys.ENTER)
    person.reads("#lightbox-error", "one word")
    person.types("#lightbox-tags input", "hills" + Keys.ENTER)
    person.clicks("#lightbox-tags button.plain")
    person.clicks("#toast-undo")
    person.wait(lambda _: not person.sees("#lightbox-tags .chip"))
    person.clicks("#lightbox-delete")
    person.reads("#lightbox-facts", "of 2")
    person.clicks("#toast-undo")
    person.sees_pictures(3)
    person.clicks("#lightbox-close")

    person.ticks("#grid", 0)
    person.clicks("#picture-bar [data-act=delete]")
    person.sees_pictures(2)
    person.clicks("#trash-tab")
    person.ticks("#trash", 0)
    person.clicks("#trash-bar [data-act=back]")
    person.waits_for("#trash-empty")
    person.clicks("#toast-undo")
    person.sees_pictures(1, "#trash")
    assert not complaints(chromium)


LOST = """
const home = "main, nav, header, dialog, [role=status], [role=alert], [aria-live], noscript, template";
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (texts.nextNode()) {
  const { data, parentElement } = texts.currentNode;
  if (data.trim() && parentElement.checkVisibility() && !parentElement.closest(home)) found.push(data.trim());
}
return found;
"""


def test_a_slow_line_and_landmarks(shoebox: Server, chromium: webdriver.Chrome) -> None:
    """What is waited for is said at once; all that is read stands in a landmark (the rule `region` of axe)."""
    slow = {"offline": False, "latency": 1500, "downloadThroughput": -1, "uploadThroughput": -1}
    person = Keeper(chromium)
    chromium.execute_cdp_cmd("Network.enable", {})
    chromium.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    chromium.execute_script("setTimeout((url) => { location.href = url; }, 0, arguments[0])", shoebox.url)
    person.waits_for("#opening")
    assert not chromium.execute_script("return document.body.className")
    person.waits_for("#email")
    assert not person.sees("#opening")
    chromium.execute_cdp_cmd("Network.emulateNetworkConditions", slow | {"latency": 0})
    assert chromium.execute_script(LOST) == []
    person.enters("#signup-tab", "slow@example.com", PASSWORD)
    person.waits_for("#pictures-empty")
    person.waits_for("#usage-text")
    chromium.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    for view in ("trash", "notes", "pictures"):
        person.clicks(f"#{view}-tab")
        person.waits_for("#waiting")
        person.wait(lambda _: not person.sees("#waiting"))
        assert chromium.execute_script(LOST) == []
