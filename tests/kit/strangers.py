"""Who comes without any session, and sends whatever it likes."""

import re
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from backlore.services.rates import DEFAULTS
from tests.conftest import PASSWORD, Server, mail_to, token_in

PLENTY = {"rates": dict.fromkeys(DEFAULTS, (10_000, 60))}


class Stranger(httpx.Client):
    """Keeps no cookie: whatever it sends stands in the test."""

    def __init__(self, server: Server):
        forgetful = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        super().__init__(base_url=server.url, timeout=20, cookies=forgetful, verify=False)

    def enter(self, email: str, password: str = PASSWORD, **headers: Any) -> httpx.Response:
        return self.post("/auth/login", json={"email": email, "password": password}, headers=headers)

    def is_in(self, cookie: str) -> bool:
        got = self.get("/auth/csrf", headers={"cookie": cookie})
        assert got.status_code == 200 or (got.status_code, got.json()) == (403, {"error": "session"}), got.text
        return got.status_code == 200


def cookies_of(given: httpx.Response) -> dict[str, str]:
    """What a reply sets: name -> `NAME=VALUE`, as a browser sends it back."""
    assert given.status_code == 200, given.text
    pairs = [value.partition(";")[0] for value in given.headers.get_list("set-cookie")]
    return {pair.partition("=")[0]: pair for pair in pairs}


def join(visitor: Stranger, server: Server, email: str, password: str = PASSWORD) -> None:
    """Sign up where addresses are verified."""
    assert visitor.post("/auth/signup", json={"email": email, "password": password}).json() == {}
    token = token_in(mail_to(server, email), "verify")
    assert visitor.post("/auth/verifyEmail", json={"token": token, "password": password}).json() == {}


def links(server: Server, kind: str) -> list[tuple[str, str]]:
    """Recipient and token of every mail with a link of the kind, oldest first."""
    texts = [file.read_text(errors="replace") for file in sorted((server.data / "outbox").glob("[0-9]*.eml"))]
    found = [(re.search(r"^To: (\S+)", text, re.M), re.search(rf"#{kind}=(\w+)", text)) for text in texts]
    return [(to[1], token[1]) for to, token in found if to and token]


def error(got: httpx.Response) -> tuple[int, str]:
    return got.status_code, got.json().get("error", "")
