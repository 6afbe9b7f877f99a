"""Providers to sign in by, an independent one and one that lies; and browsers that come and go between."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.applications.provider import evil, real
from tests.conftest import KINDS, MANY_USERS, Server, User, engine_cli, free_port

BACK = "/auth/openid/back"
RATES = {"rates": MANY_USERS["rates"] | dict.fromkeys(("openid", "password"), (10000, 60))}


@contextlib.contextmanager
def process(file: str, port: int, *words: str, log: Path) -> Iterator[str]:
    """A provider in a process of its own; its URL."""
    command = [sys.executable, "-m", f"tests.applications.provider.{file}", str(port), *words]
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        until = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/.well-known/openid-configuration", timeout=5)
                break
            assert running.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.kill()
        running.wait()


@contextlib.contextmanager
def with_providers(folder: Path, liar: str) -> Iterator[Server]:
    """A server that takes users of both; whatever the tests of a module do, none of their secrets is told."""
    port, provider = free_port(), free_port()
    with process("real", provider, f"http://127.0.0.1:{port}{BACK}/real", log=folder / "real.log") as url:
        issuers = {"real": (url, real.CLIENT["id"]), "evil": (liar, evil.CLIENT["id"])}
        issuers |= dict.fromkeys(("rotates", "swaps"), issuers["evil"])
        issuers |= {way: (f"{liar}/{way}", "x") for way in ("hang", "drip", "html", "error", "away", "large", "array")}
        issuers |= {"other": (f"{liar}/other", "x"), "gone": (f"http://127.0.0.1:{free_port()}", "x")}
        providers = {
            id: {"issuer": issuer, "client_id": client, "name": id.capitalize()}
            for id, (issuer, client) in issuers.items()
        }
        whitelist = ["example.org", "example.com"]
        settings = RATES | {"providers": providers, "verify_email": False, "whitelist": whitelist, "port": port}
        made = Server(KINDS, folder, workers=1, settings=settings, port=port)
        secrets = {"real": real.CLIENT["secret"]} | dict.fromkeys(("evil", "rotates", "swaps"), evil.CLIENT["secret"])
        secret = {"cookie": "for these tests alone, of some length", "providers": secrets}
        (made.folder / "secret.py").write_text(f"SECRET = {secret}\n")
        try:
            yield made.start()
            said = made.said()
            for word in (real.CLIENT["secret"], evil.CLIENT["secret"], "secret words", "eyJ", "code=", "Traceback"):
                assert word not in said, said
            made.stop()
        finally:
            made.kill()


def begin(browser: User, provider: str) -> dict[str, str]:
    """Begin a sign-in: the parameters that the provider's page is opened with."""
    got = browser.post("/auth/openid/begin", json={"provider": provider})
    assert got.status_code == 200, got.text
    page = urlsplit(got.json()["url"])
    return {name: values[0] for name, values in parse_qs(page.query).items()} | {"liar": f"http://{page.netloc}"}


def who(browser: User) -> dict[str, Any]:
    return browser.get("/auth/csrf").json()


def keep_csrf(browser: User) -> User:
    browser.headers["x-csrf-token"] = who(browser)["csrf"]
    return browser


def engine(server: Server, *words: str) -> str:
    return subprocess.run([*engine_cli(server), *words], capture_output=True, text=True, check=True).stdout.strip()


def come_back(browser: User, asked: dict[str, str], how: str = "right", claims: Any = None, **more: Any) -> str:
    """Come back from the liar with a code that says how it shall lie; where the browser is sent."""
    said = {"how": how, "claims": {"nonce": asked["nonce"]} | (claims or {}), **more}
    return returned(browser, {"code": lie(asked, said), "state": asked["state"]}, asked["redirect_uri"])


def lie(asked: dict[str, str], said: dict[str, Any]) -> str:
    """The code that makes the liar say this."""
    return httpx.post(f"{asked['liar']}/lie", content=json.dumps(said)).json()


def returned(browser: User, query: Any, back: str = f"{BACK}/evil") -> str:
    got = browser.get(back, params=query)
    assert got.status_code == 303 and got.headers["cache-control"] == "no-store", (got.status_code, got.text)
    assert "Max-Age=0" in got.headers.get_list("set-cookie")[0]
    return got.headers["location"]


def verified(email: Any, sub: str = "evil-1") -> dict[str, Any]:
    return {"email": email, "email_verified": True, "sub": sub}
