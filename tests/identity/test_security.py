"""Known kinds of holes, each tried over HTTP on a real server. `docs/security.md` says which test shows what."""

import contextlib
import json
import re
import subprocess
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import partial
from html.parser import HTMLParser
from http.client import HTTPConnection
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
import psutil
import pytest
from aiosmtpd.controller import Controller

from backlore.services.rates import DEFAULTS
from tests.conftest import (
    KINDS,
    PASSWORD,
    SHOEBOX,
    Server,
    User,
    engine_cli,
    free_port,
    mail_to,
    mails,
    run_in_application,
    serving,
    token_in,
    wait_until_letters_left,
)

NEW = "another long password"
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Addresses are not verified here, as by default in dev."""
    with serving(KINDS, tmp_path_factory.mktemp("security"), settings=PLENTY) as made:
        User(made, "admin@example.com").sign_up()
        yield made


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Users reach it by https, and addresses are verified, as in production."""
    settings = PLENTY | {"address": "https://app.example", "verify_email": True, "admins": ["admin@example.com"]}
    with serving(SHOEBOX, tmp_path_factory.mktemp("https"), settings=settings) as made:
        yield made


@pytest.fixture
def stranger(server: Server) -> Iterator[Stranger]:
    with Stranger(server) as client:
        yield client


@pytest.fixture
def visitor(secure: Server) -> Iterator[Stranger]:
    with Stranger(secure) as client:
        yield client


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


# What is sent instead of what is expected


def bodies(server: Server, prefixes: tuple[str, ...]) -> list[tuple[str, dict, dict]]:
    """Path, schema with its parts written out, and a body of the right type, of every route that takes one."""
    document = httpx.get(f"{server.url}/openapi.json").json()
    found = []
    for path, methods in document["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        if path.startswith(prefixes) and "application/json" in content:
            schema = written_out(content["application/json"]["schema"], document)
            found.append((path.replace("{id}", "abcdefghijklmnop"), schema, sample(schema)))
    return found


def written_out(schema: Any, document: dict) -> Any:
    if isinstance(schema, list):
        return [written_out(each, document) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return written_out(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    return {name: written_out(each, document) for name, each in schema.items()}


def sample(schema: dict, name: str = "") -> Any:
    """Something of the type, that is wrong in every other way."""
    if "anyOf" in schema:
        return sample(schema["anyOf"][0], name)
    kind = schema.get("type")
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [""])[0])
    if kind == "object":
        return {key: sample(each, key) for key, each in schema.get("properties", {}).items()}
    if kind == "string":
        return "nobody@example.com" if name == "email" else "never right".ljust(schema.get("minLength", 0), ".")
    return {"boolean": False, "integer": 1, "number": 1, "array": []}.get(kind)


def strings(schema: dict) -> list[str]:
    """The fields that are text, and only text."""
    return [name for name, each in schema.get("properties", {}).items() if each.get("type") == "string"]


def places(schema: dict, value: Any) -> Iterator[dict]:
    """Every closed object in a sample, outermost first."""
    if isinstance(value, dict) and schema.get("type") == "object":
        if schema.get("additionalProperties") is False:
            yield value
        for name, each in schema.get("properties", {}).items():
            yield from places(each, value.get(name))


DEEP = '{"a":' * 500 + "[" * 500 + "]" * 500 + "}" * 500
OTHER_TYPES = ["{}", "[]", "null", "1", "1.5", "true", '{"$gt":""}', '["nobody@example.com"]', DEEP]


def test_text_and_nothing_else_where_text_is_expected(server: Server) -> None:
    """For every field of every auth and admin route: another type is the contract's 400, at whatever depth."""
    boss = User(server, "admin@example.com").log_in()
    tried = 0
    for path, schema, right in bodies(server, ("/auth/", "/admin/")):
        for name in strings(schema):
            for wrong in OTHER_TYPES:
                raw = json.dumps(right | {name: "HERE"}).replace('"HERE"', wrong)
                got = boss.post(path, content=raw, headers={"content-type": "application/json"})
                assert error(got) == (400, "payload"), (path, name, wrong[:50], got.text)
                tried += 1
            got = boss.post(path, json=right | {name: "a" * 18_000})
            assert error(got) == (400, "payload"), (path, name, got.text)
            assert error(boss.post(path, json=right | {name: "a" * 30_000})) == (413, "size"), path
        for batch in ([right], [right, right], {"0": right}, [[right] * 3]):
            got = boss.post(path, json=batch)
            assert error(got) == (400, "payload"), (path, got.text)  # nor are many tries one request
    assert tried >= 10 * len(OTHER_TYPES)
    assert boss.get("/auth/csrf").json()["user"]["admin"] is True
    assert "handler.failed" not in server.said()


GIFTS: list[dict[str, Any]] = [{"admin": True}, {"verified": "1"}, {"state": ""}, {"id": "abcdefghijklmnop"}]
GIFTS += [{"user": {"admin": True}}, {"role": "admin"}, {"__proto__": {"admin": True}}, {"flagged": True}]


def test_nothing_is_given_by_what_is_not_asked_for(server: Server) -> None:
    """Mass assignment: an unknown key is refused in every object of every payload, and changes nothing."""
    user = User(server, "gifts@example.com").sign_up()
    tried = 0
    for path, schema, right in bodies(server, ("/auth/",)):
        for number in range(len(list(places(schema, right)))):
            for gift in GIFTS:
                name = next(iter(gift))
                body = json.loads(json.dumps(right))
                place = list(places(schema, body))[number]
                if name not in place:
                    got = user.post(path, json=place.update(gift) or body)
                    assert error(got) == (400, "payload") and name in got.json()["where"], (path, gift, got.text)
                    tried += 1
    assert tried >= 10 * len(GIFTS)
    for path in ("/auth/signup", "/auth/login"):
        for more in ("admin=true", "admin=1&verified=1", "user[admin]=1"):
            raw = f"email=gifts%40example.com&password=never+right&{more}"
            got = user.post(path, content=raw, headers={"content-type": "application/x-www-form-urlencoded"})
            assert error(got) == (400, "payload"), got.text
    shown = user.get("/auth/csrf").json()["user"]
    assert shown["admin"] is False
    boss = User(server, "admin@example.com").log_in()
    kept = boss.get(f"/admin/users/{shown['id']}").json()["user"]
    assert (kept["admin"], kept["verified"], kept["state"]) == (False, False, "active")


# What an earlier claimant of an address has


def test_the_owner_of_an_address_gets_rid_of_who_came_first(server: Server, stranger: Stranger) -> None:
    """Pre-hijacking: sessions, password and mails under way of a squatter are worth nothing after a reset."""
    address = "victim@example.com"
    squatter = User(server, address).sign_up()
    other = User(server, address).log_in()
    change = {"email": "squatter@evil.example", "password": PASSWORD}
    assert squatter.post("/auth/changeEmail", json=change).json() == {}
    kept = token_in(mail_to(server, "squatter@evil.example"), "verify")
    assert squatter.post("/auth/recover", json={"email": address}).json() == {}
    waiting = token_in(mail_to(server, address), "reset")  # read by whoever, not used yet
    assert stranger.post("/auth/recover", json={"email": address}).json() == {}
    token = token_in(mail_to(server, address, 2), "reset")
    assert stranger.post("/auth/reset", json={"token": token, "password": NEW}).json() == {}
    for each in (squatter, other):
        assert error(each.get("/auth/csrf")) == (403, "session")
    assert error(stranger.enter(address)) == (403, "auth")
    assert error(stranger.post("/auth/verifyEmail", json={"token": kept})) == (403, "session")
    assert error(User(server, "bystander@example.com").sign_up().post("/auth/verifyEmail", json={"token": kept})) == (
        403,
        "token",
    )
    assert error(stranger.post("/auth/reset", json={"token": waiting, "password": PASSWORD})) == (403, "token")
    owner = cookies_of(stranger.enter(address, NEW))["kinds"]
    assert stranger.get("/auth/csrf", headers={"cookie": owner}).json()["user"]["email"] == address
    assert error(stranger.enter("squatter@evil.example")) == (403, "auth")


def test_an_address_is_given_once_where_it_is_not_verified(server: Server, stranger: Stranger) -> None:
    for number in range(3):
        with ThreadPoolExecutor(4) as pool:
            sent = [{"email": f"once{number}@example.com", "password": f"the password number {n}"} for n in range(4)]
            got = list(pool.map(lambda body: stranger.post("/auth/signup", json=body).status_code, sent))
        assert sorted(got) == [200] + [403] * 3
        made = [stranger.enter(body["email"], body["password"]).status_code for body in sent]
        assert made == got  # and who was told so has it


def test_a_password_counts_as_a_whole(stranger: Stranger) -> None:
    """As it was typed, whatever it is made of; only Unicode's two ways to write a letter are one."""
    longest = ("caf\u00e9 \U0001f600 'or 1=1 " * 9)[:127] + "x"
    simple = "nothing but small letters"
    for number, password in enumerate((longest, simple, "3141592653589793", " leading and trailing ", "\u0000" * 8)):
        email = f"whole{number}@example.com"
        assert stranger.post("/auth/signup", json={"email": email, "password": password}).json() == {}
        wrong = [password[:-1], password[:-1] + "y", password.swapcase(), password.strip(), password[:72]]
        for other in {each for each in wrong if each not in ("", password)}:
            assert error(stranger.enter(email, other)) == (403, "auth"), other
        assert stranger.enter(email, password).status_code == 200
    composed, apart = "caf\u00e9 au lait", "cafe\u0301 au lait"
    assert stranger.post("/auth/signup", json={"email": "nfd@example.com", "password": apart}).json() == {}
    assert stranger.enter("nfd@example.com", composed).status_code == 200
    for bad in ("a" * 7, "a" * 129, "password123", "NFD@example.com"):
        sent = {"email": "nfd@example.com", "password": bad}
        assert error(stranger.post("/auth/signup", json=sent)) == (400, "payload"), bad


# Sessions that should have ended


def race(clients: list[Stranger], email: str, act: Callable[[], httpx.Response]) -> list[str]:
    """Log in with the old password without a pause while `act` runs; the sessions that this has given."""
    cookies: list[str] = []
    done = threading.Event()

    def hammer(client: Stranger) -> None:
        while not done.is_set():
            given = client.enter(email)
            assert given.status_code in (200, 403, 503), given.text
            if given.status_code == 200:
                cookies.append(cookies_of(given)["kinds"])

    with ThreadPoolExecutor(len(clients)) as pool:
        hammering = [pool.submit(hammer, client) for client in clients]
        try:
            until = time.monotonic() + 10
            while not cookies:
                assert time.monotonic() < until, "nobody got in"
                time.sleep(0.001)
            got = act()
            assert got.status_code == 200, got.text
        finally:
            done.set()
        for each in hammering:
            each.result(20)
    return cookies


Acts = Iterator[Callable[[], httpx.Response]]


def reset(server: Server, users: list[User]) -> Acts:
    for user in users:
        assert user.post("/auth/recover", json={"email": user.email}).json() == {}
    for user in users:
        until = time.monotonic() + 10
        while user.email not in (tokens := dict(links(server, "reset"))):
            assert time.monotonic() < until
            time.sleep(0.02)
        yield partial(user.post, "/auth/reset", json={"token": tokens[user.email], "password": NEW})


def change(server: Server, users: list[User]) -> Acts:
    for user in users:
        yield partial(user.post, "/auth/changePassword", json={"old": PASSWORD, "new": NEW})


def disable(server: Server, users: list[User]) -> Acts:
    boss = User(server, "admin@example.com").log_in()
    for user in users:
        yield partial(boss.post, f"/admin/users/{user.get('/auth/csrf').json()['user']['id']}/disable")


def destroy(server: Server, users: list[User]) -> Acts:
    for user in users:
        yield partial(user.post, "/auth/destroy", json={"password": PASSWORD})


ENDINGS = [(reset, 20, 200), (change, 5, 200), (disable, 5, 403), (destroy, 5, 403)]


@pytest.mark.parametrize(("ending", "rounds", "new"), ENDINGS, ids=[each[0].__name__ for each in ENDINGS])
def test_no_session_outlives_its_reason(
    server: Server, stranger: Stranger, ending: Callable[[Server, list[User]], Acts], rounds: int, new: int
) -> None:
    """However a login and what ends all sessions meet: nobody who came by the old password is still in."""
    clients = [Stranger(server) for _ in range(3)]
    users = [User(server, f"{ending.__name__}{number}@race.example").sign_up() for number in range(rounds)]
    for user, act in zip(users, ending(server, users), strict=True):
        made = race(clients, user.email, act)
        assert not [cookie for cookie in made if stranger.is_in(cookie)]
        assert error(stranger.enter(user.email)) == (403, "auth")
        assert stranger.enter(user.email, NEW).status_code == new
        assert user.get("/auth/csrf").status_code == (200 if ending is change else 403)


def test_logout_ends_the_session_for_every_worker(server: Server, stranger: Stranger) -> None:
    given = stranger.post("/auth/signup", json={"email": "out@example.com", "password": PASSWORD})
    given = stranger.enter("out@example.com")
    cookie, token = cookies_of(given)["kinds"], given.json()["csrf"]
    assert stranger.is_in(cookie)
    left = stranger.post("/auth/logout", json={"csrf": token}, headers={"cookie": cookie})
    assert left.status_code == 200
    assert not any(Stranger(server).is_in(cookie) for _ in range(6))  # connections of their own: both workers


def test_a_session_ends_unused_and_after_its_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = PLENTY | {"session_idle": 1, "session_limit": 3}
    with serving(KINDS, tmp_path_factory.mktemp("ages"), settings=settings) as server, Stranger(server) as client:
        User(server, "ages@example.com").sign_up()
        unused, used = (cookies_of(client.enter("ages@example.com"))["kinds"] for _ in range(2))
        assert client.is_in(unused)
        since = time.monotonic()
        while client.is_in(used):
            lived = time.monotonic() - since
            assert lived < 10, "it goes on for ever"
            time.sleep(0.1)
        assert lived > 1  # use has kept it alive: it was the limit that ended it
        assert not client.is_in(unused)
        assert client.enter("ages@example.com").status_code == 200


def test_a_cookie_that_is_brought_along_is_not_adopted(server: Server, stranger: Stranger) -> None:
    """Session fixation: each login makes a session and a csrf token of its own."""
    for name in ("fixed", "fixer"):
        assert stranger.post("/auth/signup", json={"email": f"{name}@example.com", "password": PASSWORD}).json() == {}
    planted = cookies_of(stranger.enter("fixer@example.com"))["kinds"]
    made = {planted}
    tokens = set()
    for brought in (planted, "kinds=abcdefghijklmnopqrstuvwxyz.0", "kinds=", f"{planted}; {planted}"):
        given = stranger.enter("fixed@example.com", cookie=brought)
        mine = cookies_of(given)["kinds"]
        assert mine not in made
        made.add(mine)
        tokens.add(given.json()["csrf"])
        assert stranger.get("/auth/csrf", headers={"cookie": mine}).json()["user"]["email"] == "fixed@example.com"
    assert len(tokens) == 4
    assert not stranger.is_in(planted)  # the session that a browser had ends: nobody would end it any more


# What a request says of itself


def test_no_header_makes_another_request_of_it(stranger: Stranger) -> None:
    for name in ("x-http-method-override", "x-http-method", "x-method-override"):
        assert error(stranger.post("/whole/3", headers={name: "GET"})) == (405, "method")
        assert error(stranger.get("/auth/logout", headers={name: "POST"})) == (405, "method")
    assert error(stranger.get("/auth/logout?_method=POST")) == (405, "method")
    body = {"email": "a@b.example", "password": PASSWORD, "_method": "GET"}
    assert error(stranger.post("/auth/login", json=body)) == (400, "payload")
    for name in ("x-original-url", "x-rewrite-url", "x-forwarded-prefix"):
        assert error(stranger.get("/who", headers={name: "/health"})) == (403, "nocookie")


def test_links_and_cookies_are_of_the_configured_address(secure: Server, visitor: Stranger) -> None:
    evil = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "http"}
    evil |= {"forwarded": "for=203.0.113.66;host=evil.example;proto=http", "x-forwarded-for": "203.0.113.66"}
    address = "linked@example.com"
    assert visitor.post("/auth/signup", json={"email": address, "password": PASSWORD}, headers=evil).json() == {}
    token = token_in(mail_to(secure, address), "verify")
    assert visitor.post("/auth/verifyEmail", json={"token": token, "password": PASSWORD}, headers=evil).json() == {}
    given = visitor.enter(address, **evil)
    assert "; Secure" in given.headers["set-cookie"] and "domain" not in given.headers["set-cookie"].lower()
    assert visitor.post("/auth/recover", json={"email": address}, headers=evil).json() == {}
    token = token_in(mail_to(secure, address, 2), "reset")
    assert visitor.post("/auth/reset", json={"token": token, "password": NEW}, headers=evil).json() == {}
    assert "127.0.0.1" in mail_to(secure, address, 3)  # who is no proxy is not believed where he comes from
    for mail in mails(secure, address):
        assert "evil.example" not in mail.as_string() and "203.0.113.66" not in mail.as_string()


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "/%2f%2fevil.example", "/%5cevil.example"])
@pytest.mark.parametrize("below", ["", "/files/folder", "/client", "/who", "/auth/login"])
def test_nobody_is_sent_to_another_site(server: Server, below: str, path: str) -> None:
    """No reply redirects: neither for a slash more or less, nor to what stands in the path or the query."""
    for target in (f"{path}/%2e%2e", f"{below}{path}", f"{below}/", f"{below or '/'}?next=//evil.example&url={path}"):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.putrequest("GET", target)
        connection.endheaders()
        got = connection.getresponse()
        assert not 300 <= got.status < 400 and not got.getheader("location") and not got.getheader("refresh")
        connection.close()


# Limits


def spellings(email: str) -> list[str]:
    """Other ways to write an address that mean the same account."""
    local, _, domain = email.partition("@")
    forms = {unicodedata.normalize(form, email) for form in ("NFC", "NFD")}
    forms |= {each.upper() for each in list(forms)} | {f"{local.title()}@{domain}", f"{local}@{domain.upper()}"}
    return sorted(forms | {email.replace("k", "\u212a")})  # the Kelvin sign is a k (Unicode: canonical equivalence)


def test_a_limit_is_the_same_for_all_spellings_and_connections(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = {"rates": PLENTY["rates"] | {"login-account": (5, 600), "recover-account": (2, 600)}}
    with serving(KINDS, tmp_path_factory.mktemp("spelt"), settings=settings) as server:
        email = "frank.m\u00fcller@example.com"
        User(server, email).sign_up()
        ways = spellings(email)
        assert len(ways) >= 6
        with Stranger(server) as client, ThreadPoolExecutor(50) as pool:
            tries = [(ways[n % len(ways)], f"guess number {n}") for n in range(50)]
            got = list(pool.map(lambda each: client.enter(*each).status_code, tries))
            assert (got.count(403), got.count(429)) == (5, 45)
            for way in ways:
                refused = client.enter(way)
                assert error(refused) == (429, "rate") and int(refused.headers["retry-after"]) >= 1
            batch = [{"email": email, "password": f"guess {n}"} for n in range(50)]
            assert error(client.post("/auth/login", json=batch)) == (400, "payload")
            # nor is a space in front a way around: it is no address, or another account's that is not there
            assert error(client.enter(f" {email} ")) == (403, "auth")
            assert error(client.post("/auth/recover", json={"email": f" {email}"})) == (400, "payload")
            # what stands behind a plus is another account, and another mailbox for all we know
            assert client.enter(email.replace("@", "+1@")).status_code == 403
            sent = [client.post("/auth/recover", json={"email": way}).status_code for way in ways]
            assert (sent.count(200), sent.count(429)) == (2, len(ways) - 2)


# Addresses that look alike

STORED = "kate@example.com"
ALIKE = [
    "k\u0430te@example.com",  # Cyrillic a
    "\u212aate@ex\u0430mple.com",  # Kelvin sign, and a Cyrillic a
    "\uff4bate@example.com",  # fullwidth k
    "k\u03b1te@example.com",  # Greek alpha
    "kate\u0301@example.com",  # an accent
    "kate\u034f@example.com",  # combining grapheme joiner, unseen
    "kate@ex\u0101mple.com",
    "kate@example.c\u043em",  # Cyrillic o
    "kate+x@example.com",
    "kate.@example.com",
]
REFUSED = [
    "kate\u200b@example.com", "kate\u00ad@example.com", "kate\u2060@example.com", "\u202ekate@example.com",
    "kate@exam\u200dple.com", "kate@example\u3002com\n", "kate @example.com", "kate@example.com ", "kate\u3000@x.com",
]  # fmt: skip


def test_who_looks_like_another_is_another(secure: Server, visitor: Stranger) -> None:
    """Either no address, or a distinct account: no mail, no token and no login of one is the other's."""
    join(visitor, secure, STORED)
    for address in REFUSED:
        for path, more in (("/auth/signup", {"password": NEW}), ("/auth/recover", {})):
            assert error(visitor.post(path, json={"email": address, **more})) == (400, "payload"), ascii(address)
    for address in ALIKE:
        assert visitor.post("/auth/recover", json={"email": address}).status_code == 200
        assert error(visitor.enter(address)) == (403, "auth"), ascii(address)  # it is not kate's password
        assert visitor.post("/auth/signup", json={"email": address, "password": NEW}).status_code == 200
    visitor.post("/auth/recover", json={"email": "end@example.com"})
    visitor.post("/auth/signup", json={"email": "end@example.com", "password": NEW})
    wait_until_letters_left(secure)
    assert mails(secure, "end@example.com")
    assert len(mails(secure, STORED)) == 1  # the verification of her own
    assert visitor.enter(STORED).status_code == 200 and error(visitor.enter(STORED, NEW)) == (403, "auth")


def test_a_link_goes_to_the_address_as_it_is_kept(secure: Server, visitor: Stranger) -> None:
    """However it is typed when asking: a mailbox that our account does not name gets no link to it."""
    kept = "\u01f0ack@example.com"
    join(visitor, secure, kept)
    for typed in (
        "\u01f0ack@example.com",
        "j\u030cack@example.com",
        "J\u030cACK@Example.com",
        "J\u030cack@example.com",
    ):
        assert visitor.post("/auth/recover", json={"email": typed}).json() == {}
    wait_until_letters_left(secure)
    wrong = [file for file in (secure.data / "outbox").glob("[0-9]*.eml") if "j\u030cack" in file.read_text("utf-8")]
    assert not wrong, "a link was mailed to another mailbox than the account's"
    assert len(mails(secure, kept)) == 5


@pytest.mark.parametrize("domain", ["\uff45xample.com", "exa\ufe0fmple.com", "\u2163.example"])
def test_a_domain_that_mail_takes_for_another_is_refused(secure: Server, visitor: Stranger, domain: str) -> None:
    """IDNA 2003 maps these to other domains, whose owners would get the mails."""
    for path, more in (("/auth/signup", {"password": NEW}), ("/auth/recover", {})):
        got = visitor.post(path, json={"email": f"kate@{domain}", **more})
        assert error(got) == (400, "payload"), got.text


def test_nobody_becomes_an_admin_by_looking_like_one(server: Server) -> None:
    for address in (
        "adm\u0131n@example.com",
        "\u0430dmin@example.com",
        "\uff41dmin@example.com",
        "ADM\u0130N@example.com",
    ):
        user = User(server, address).sign_up()
        assert user.get("/auth/csrf").json()["user"]["admin"] is False, ascii(address)
        assert error(user.get("/admin/users")) == (403, "admin")


# What is told to whom


def alike(*replies: httpx.Response) -> None:
    """Replies that a stranger can't tell apart: status, body, and headers but for the clock."""
    seen = {
        (got.status_code, got.content, tuple(sorted(pair for pair in got.headers.items() if pair[0] != "date")))
        for got in replies
    }
    assert len(seen) == 1, seen


def test_known_and_unknown_are_answered_alike(secure: Server, visitor: Stranger) -> None:
    for name in ("known", "closed"):
        join(visitor, secure, f"{name}@example.com")
    visitor.post("/auth/signup", json={"email": "waiting@example.com", "password": PASSWORD})
    mail_to(secure, "waiting@example.com")
    close(visitor, secure, "closed@example.com")
    addresses = [f"{name}@example.com" for name in ("known", "closed", "waiting", "unknown")]
    alike(*(visitor.enter(address, "a wrong password") for address in addresses))
    alike(visitor.enter("closed@example.com"), visitor.enter("unknown@example.com"))  # also with the right one
    alike(*(visitor.post("/auth/recover", json={"email": address}) for address in addresses))
    alike(*(visitor.post("/auth/signup", json={"email": address, "password": NEW}) for address in addresses))
    alike(*(visitor.enter(address, NEW) for address in addresses))  # to who has signed up with what is another's
    # the owners alone are told, each once by mail, a disabled one not at all of the link
    assert "#reset=" in mail_to(secure, "known@example.com", 2) and mail_to(secure, "known@example.com", 3)
    mail_to(secure, "unknown@example.com")
    mail_to(secure, "waiting@example.com", 2)
    mail_to(secure, "closed@example.com", 2)
    wait_until_letters_left(secure)
    numbers = [len(mails(secure, address)) for address in addresses]
    assert numbers == [3, 2, 2, 1]
    assert not any("#reset=" in mail.as_string() for mail in mails(secure, "closed@example.com"))


def close(visitor: Stranger, server: Server, email: str) -> None:
    """Disable an account, as an admin does."""
    join(visitor, server, "admin@example.com")
    given = visitor.enter("admin@example.com")
    boss = {"cookie": cookies_of(given)["__Host-shoebox"], "x-csrf-token": given.json()["csrf"]}
    (user,) = visitor.get("/admin/users", params={"search": email}, headers=boss).json()["users"]
    assert visitor.post(f"/admin/users/{user['id']}/disable", headers=boss).json() == {}


def test_secrets_stand_in_no_log_and_no_notification(server: Server) -> None:
    user = User(server, "quiet@example.com").sign_up()
    assert user.post("/auth/recover", json={"email": user.email}).json() == {}
    token = token_in(mail_to(server, user.email), "reset")
    session, _, signature = user.cookies["kinds"].partition(".")
    secrets = [token, session, signature, user.csrf, PASSWORD, "a wrong password", NEW]
    user.get(f"/auth/csrf?token={token}&csrf={user.csrf}&session={session}")  # in a query: not told either
    user.get(f"/nowhere?password={NEW.replace(' ', '+')}")
    user.post("/auth/login", json={"email": user.email, "password": "a wrong password"})
    user.post(
        "/auth/login", content=json.dumps({"password": PASSWORD})[:-1], headers={"content-type": "application/json"}
    )
    user.post("/auth/changePassword", json={"old": "a wrong password", "new": NEW})
    user.post("/auth/reset", json={"token": f"{token}x", "password": NEW})
    user.get("/fails", headers={"authorization": f"Bearer {session}", "x-csrf-token": user.csrf})
    with Stranger(server) as other:
        other.get("/who", headers={"cookie": f"kinds={session}.{'0' * 32}"})
    server.wait_said("session.tampered")
    assert user.post("/auth/reset", json={"token": token, "password": NEW}).json() == {}
    user.get("/the-end-of-secrets")
    said = server.wait_said("the-end-of-secrets")
    for secret in [*secrets, NEW.replace(" ", "+")]:
        assert secret not in said


# What another site makes a browser send

CROSS = [
    {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    {"sec-fetch-site": "same-site", "origin": "https://blog.example.com"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "origin": "null"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1.evil.example"},
    {"origin": "http://127.0.0.1"},  # another port
    {"sec-fetch-site": "no such word"},
]


def test_no_post_of_another_site_is_taken(server: Server) -> None:
    """Every auth route, login before all (login csrf), also for who is logged in and has the token."""
    user = User(server, "cross@example.com").sign_up()
    right = {"email": "cross@example.com", "password": PASSWORD}
    document = user.get("/openapi.json").json()["paths"]
    paths = [path for path, methods in document.items() if path.startswith("/auth/") and "post" in methods]
    assert len(paths) >= 11
    for headers in CROSS:
        for path in paths:
            assert error(user.post(path, json={}, headers=headers)) == (403, "csrf"), (path, headers)
        refused = user.post("/auth/login", json=right, headers=headers)
        assert error(refused) == (403, "csrf") and "set-cookie" not in refused.headers
    mine = {"sec-fetch-site": "same-origin", "origin": server.url}
    assert user.post("/auth/login", json=right, headers=mine).status_code == 200
    assert user.post("/auth/login", json=right, headers={"origin": server.url}).status_code == 200


def test_a_form_of_another_site_changes_nothing(server: Server, stranger: Stranger) -> None:
    """Where a browser says nothing of where it comes from, the token is what such a page can't have."""
    user = User(server, "form@example.com").sign_up()
    cookie = {"cookie": f"kinds={user.cookies['kinds']}"}
    form = {"email": "evil@evil.example", "password": PASSWORD, "old": PASSWORD, "new": NEW, "others": "true"}
    for path in ("/auth/changePassword", "/auth/changeEmail", "/auth/destroy", "/auth/logout", "/auth/sessions/end"):
        for csrf in ({}, {"csrf": ""}, {"csrf": "0" * 32}):
            sent = form | csrf
            assert error(stranger.post(path, data=sent, headers=cookie)) == (403, "csrf"), path
            multipart = {name: (None, value) for name, value in list(sent.items())[-4:]}
            assert error(stranger.post(path, files=multipart, headers=cookie)) == (403, "csrf"), path
            assert error(stranger.post(f"{path}?csrf={user.csrf}", data=sent, headers=cookie)) == (403, "csrf"), path
    # JSON in disguise: what a form can send without asking first (CORS) is not read as JSON
    for kind in ("text/plain", "text/plain;charset=UTF-8", "application/octet-stream", "text/json", ""):
        raw = json.dumps({"email": user.email, "password": PASSWORD, "csrf": user.csrf})
        assert stranger.post("/auth/login", content=raw, headers={"content-type": kind}).status_code in (400, 415)
        got = stranger.post("/auth/changeEmail", content=raw, headers=cookie | {"content-type": kind})
        assert got.status_code in (403, 415), (kind, got.text)
    assert user.get("/auth/csrf").json()["user"]["email"] == user.email
    other = User(server, "form2@example.com").sign_up()
    assert error(stranger.post("/auth/logout", data={"csrf": other.csrf}, headers=cookie)) == (403, "csrf")


def test_a_cookie_of_another_host_is_not_ours(secure: Server, visitor: Stranger) -> None:
    """Over https the name begins with __Host-: no sub-domain can set it, and one without is not looked at."""
    join(visitor, secure, "host@example.com")
    given = cookies_of(visitor.enter("host@example.com"))
    assert set(given) == {"__Host-shoebox", "__Host-shoebox-device"}
    pair = given["__Host-shoebox"]
    assert visitor.is_in(pair)
    value = pair.partition("=")[2]
    for name in ("shoebox", "__Secure-shoebox", "__host-shoebox", "X__Host-shoebox", "__Host-shoebox-device"):
        assert error(visitor.get("/auth/csrf", headers={"cookie": f"{name}={value}"})) == (403, "nocookie"), name
    device = given["__Host-shoebox-device"].partition("=")[2]
    got = visitor.get("/auth/csrf", headers={"cookie": f"__Host-shoebox={device}"})
    assert error(got) == (403, "tampered")  # a signature for one purpose is none for another
    planted = f"shoebox=planted.0; {pair}"
    assert visitor.is_in(planted)


COOKIES = [
    # the header, and whose session it is or what is refused; NAME is the cookie's, ANN and BOB what two users have
    ("NAME=ANN", "ann"),
    ("a=b; NAME=ANN; c=d", "ann"),
    ("a=b;NAME=ANN;", "ann"),
    ("a=b;\tNAME=ANN \t; c=d", "ann"),
    ("a=b; ;; NAME=ANN", "ann"),
    ("NAME=forged.0; NAME=ANN", "ann"),
    ("NAME=ANN; NAME=forged.0", "ann"),
    ("NAME=; NAME=BOB; NAME=ANN", "bob"),
    ("NAME=ANN; NAME=BOB", "ann"),
    ("a=x NAME=ANN", "nocookie"),
    ("a=x\tNAME=ANN", "nocookie"),
    ("a=x, NAME=ANN", "nocookie"),
    ("a=NAME=ANN", "nocookie"),
    ("xNAME=ANN", "nocookie"),
    ("NAMEx=ANN", "nocookie"),
    ("NAME =ANN", "nocookie"),
    ("NAME", "nocookie"),
    ("\u00a0NAME=ANN", "nocookie"),
    ("a=x \u00a0NAME=ANN; NAME=BOB", "bob"),
    ("NAME= ANN", "tampered"),
    ('NAME="ANN"', "tampered"),
    ('a="x; NAME=ANN"', "tampered"),
    ("NAME=ANNx", "tampered"),
    ("NAME=a.b; NAME=ANN.c", "tampered"),
]


@pytest.mark.parametrize(("header", "whose"), COOKIES)
def test_which_cookie_counts(server: Server, stranger: Stranger, header: str, whose: str) -> None:
    """No other cookie's value is taken for ours, and a forged one beside ours locks nobody out."""
    for name in ("ann", "bob"):
        email = f"{name}@cookies.example"
        stranger.post("/auth/signup", json={"email": email, "password": PASSWORD})
        header = header.replace(name.upper(), cookies_of(stranger.enter(email))["kinds"].partition("=")[2])
    got = stranger.get("/auth/csrf", headers={"cookie": header.replace("NAME", "kinds").encode("latin-1")})
    assert whose == (got.json().get("error") or got.json()["user"]["email"].partition("@")[0])


# What a browser is told to keep to


def test_cookies_over_https(secure: Server, visitor: Stranger) -> None:
    join(visitor, secure, "flags@example.com")
    given = visitor.enter("flags@example.com")
    session, device = (set(value.split("; ")[1:]) for value in given.headers.get_list("set-cookie"))
    always = {"HttpOnly", "SameSite=Lax", "Secure"}
    assert {"Path=/"} | always <= session & device
    assert not any(each.lower().startswith("domain") for each in session | device)
    assert all(len(value.partition(";")[0]) < 4096 for value in given.headers.get_list("set-cookie"))
    pair = cookies_of(given)["__Host-shoebox"]
    left = visitor.post("/auth/logout", headers={"cookie": pair, "x-csrf-token": given.json()["csrf"]})
    assert left.headers["set-cookie"].startswith("__Host-shoebox=;") and "Max-Age=0" in left.headers["set-cookie"]
    assert "; Secure" in left.headers["set-cookie"]  # else a browser refuses to delete it
    assert pair.partition("=")[2] not in given.text  # a script gets it by no reply


def test_headers_of_every_reply_over_https(secure: Server, visitor: Stranger) -> None:
    replies = [
        visitor.get(path) for path in ("/", "/client/shoebox.js", "/health", "/notes", "/nowhere", "/auth/login")
    ]
    replies += [visitor.post("/auth/login", content=b"{"), visitor.options("/health"), visitor.head("/")]
    replies.append(visitor.get("/", headers={"if-none-match": replies[0].headers["etag"]}))
    assert {got.status_code for got in replies} >= {200, 204, 304, 403, 404, 405}
    for got in replies:
        assert "max-age=31536000" in got.headers["strict-transport-security"], got.request.url
        assert got.headers["x-content-type-options"] == "nosniff" and got.headers["x-frame-options"] == "DENY"
        assert got.headers["referrer-policy"] == "same-origin"
        assert not [name for name in got.headers if name.startswith("access-control-")]


class Scripts(HTMLParser):
    """What of a page would run, or look, without a file of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.loaded: list[str] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self.loaded += [given[name] or "" for name in ("src", "href") if given.get(name)]
        self.inline += [value for value in given.values() if value and value.strip().lower().startswith("javascript:")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def test_the_page_runs_nothing_but_its_own_files(visitor: Stranger) -> None:
    page = visitor.get("/")
    policy = dict(each.strip().partition(" ")[::2] for each in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'" and "unsafe" not in str(policy)
    assert policy["object-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["form-action"] == "'self'" and not {"script-src", "style-src", "connect-src"} & set(policy)
    found = Scripts()
    found.feed(page.text)
    assert not found.inline
    assert found.loaded and not [place for place in found.loaded if not place.startswith(("/", "#"))]
    assert not [place for place in found.loaded if place.startswith("//")]
    assert all(visitor.get(place).status_code == 200 for place in found.loaded if place.startswith("/client/"))


def test_nothing_private_is_kept_by_a_cache(secure: Server, visitor: Stranger) -> None:
    """And the tag still spares sending what has not changed."""
    join(visitor, secure, "cache@example.com")
    given = visitor.enter("cache@example.com")
    cookie = {"cookie": cookies_of(given)["__Host-shoebox"], "x-csrf-token": given.json()["csrf"]}
    assert given.headers["cache-control"] == "no-store"
    for path in ("/auth/csrf", "/auth/sessions", "/notes", "/tags"):
        first = visitor.get(path, headers=cookie)
        assert (first.status_code, first.headers["cache-control"]) == (200, "no-store"), path
        again = visitor.get(path, headers=cookie | {"if-none-match": first.headers["etag"]})
        if path != "/auth/sessions":  # which tells when it was used, and so may have changed
            assert (again.status_code, again.content) == (304, b""), path
        assert again.headers["cache-control"] == "no-store" and again.headers["etag"]
        head = visitor.head(path, headers=cookie)
        assert (head.content, head.headers["cache-control"]) == (b"", "no-store")
        refused = visitor.get(path)
        assert (refused.status_code, refused.headers["cache-control"]) == (403, "no-store")
    for path, body in (("/notes", {"text": "a"}), ("/notes", {}), ("/notes/99", {"text": "a"}), ("/auth/destroy", {})):
        assert visitor.post(path, json=body, headers=cookie).headers["cache-control"] == "no-store"
    assert visitor.get("/notes/99", headers=cookie).headers["cache-control"] == "no-store"
    assert visitor.post("/auth/recover", json={"email": "x@example.com"}).headers["cache-control"] == "no-store"


def test_what_a_client_says_makes_no_header_of_a_mail(server: Server) -> None:
    user = User(server, "mailed@example.com").sign_up()
    with Stranger(server) as other:
        agent = "<b>Evil</b>\x85Bcc: evil@evil.example %0d%0aBcc:x {link} \xa0\xad\xff".encode("latin-1")
        assert other.enter(user.email, **{"user-agent": agent}).status_code == 200
        for ending in ("\r\nBcc: evil@evil.example", "\nBcc: evil@evil.example", "\r", "\0", "%0aBcc:x@y.example "):
            sent = {"email": f"mailed@example.com{ending}", "password": PASSWORD}
            assert error(other.post("/auth/signup", json=sent)) == (400, "payload"), repr(ending)
            change = {"email": sent["email"], "password": PASSWORD}
            assert error(user.post("/auth/changeEmail", json=change)) == (400, "payload"), repr(ending)
    text = mail_to(server, user.email)
    (mail,) = mails(server, user.email)
    assert not {"bcc", "cc"} & {name.lower() for name in mail.keys()} and mail["to"] == user.email  # noqa: SIM118
    assert not [line for line in text.splitlines() if line.startswith("Bcc")]
    assert "<b>" not in mail.get_body(("html",)).get_content()


# What breaks half-way


def test_the_engine_dies_between_two_steps(tmp_path_factory: pytest.TempPathFactory) -> None:
    """While people sign up, prove, reset and leave, it dies again and again: whoever tries again gets on at last."""
    settings = PLENTY | {"verify_email": True}
    over = threading.Event()
    with serving(KINDS, tmp_path_factory.mktemp("broken"), settings=settings) as server, ThreadPoolExecutor(5) as pool:
        people = [pool.submit(live_until, over, server, number) for number in range(5)]
        try:
            for number in range(12):
                time.sleep(0.3 + 0.013 * number)  # another moment each time
                break_something(server, number)
        finally:
            over.set()
        lives = [each.result(60) for each in people]
        assert min(lives) >= 1, lives
        assert "handler.failed" not in server.said()


def break_something(server: Server, number: int) -> None:
    """The engine dies; or hangs, so that commands time out, and then dies; or a worker dies. All is back afterwards."""
    if number % 3 == 0:
        server.engine().kill()
    elif number % 3 == 1:
        engine = server.engine()
        engine.suspend()
        time.sleep(1)  # a command has 0.8 s: what runs is cut here, and what waits in the socket never runs
        engine.kill()
    else:
        server.workers()[0].kill()
    until = time.monotonic() + 10
    back = False
    while not back:
        assert time.monotonic() < until
        with contextlib.suppress(httpx.TransportError, psutil.NoSuchProcess):
            back = httpx.get(f"{server.url}/health").status_code == 200 and len(server.workers()) == 2


def live_until(over: threading.Event, server: Server, number: int) -> int:
    """One life after the other, each by an address of its own; how many there were."""
    lives = 0
    with Stranger(server) as client:
        while lives == 0 or not over.is_set():
            person = Person(server, client, f"person{number}.{lives}@example.com")
            person.gets_in()
            person.resets()
            person.leaves()
            person.gets_in()  # the address is free again
            lives += 1
    return lives


class Person:
    """Somebody who does what people do when something does not work: log in, ask anew, wait a little."""

    PATIENCE = 40  # seconds

    def __init__(self, server: Server, client: Stranger, email: str):
        self.server, self.client, self.email = server, client, email
        self.password, self.cookie, self.csrf = PASSWORD, "", ""
        self.used: set[str] = set()  # links that were opened, or were not the newest

    def gets_in(self) -> None:
        """By a signup and its link, or by the account that a cut signup has made all the same."""
        body = {"email": self.email, "password": self.password}

        def sign_up() -> None:
            self.insists(lambda: self.sends("/auth/signup", body))

        def prove() -> None:
            self.sends("/auth/verifyEmail", {"token": self.link("verify", sign_up), "password": self.password})
            if not self.is_let_in():
                self.lets_a_minute_pass()

        sign_up()
        self.insists(self.is_let_in, prove)

    def resets(self) -> None:
        """A new password by the link of a mail; the old one is worth nothing any more."""
        old, self.password = self.password, NEW

        def ask() -> None:
            self.insists(lambda: self.sends("/auth/recover", {"email": self.email}))

        def reset() -> None:
            self.sends("/auth/reset", {"token": self.link("reset", ask), "password": NEW})

        ask()
        self.insists(self.is_let_in, reset)
        by_the_old = {"email": self.email, "password": old}
        self.insists(lambda: self.asks("/auth/login", by_the_old).status_code == 403)

    def leaves(self) -> None:
        """Destroys the account; what was cut of that the periodic task ends."""

        def destroy() -> None:
            mine = {"cookie": self.cookie, "x-csrf-token": self.csrf}
            if not self.sends("/auth/destroy", {"password": self.password}, **mine) and not self.is_let_in():
                self.erases_what_was_cut()

        def is_gone() -> bool:
            given = self.asks("/auth/login", {"email": self.email, "password": self.password})
            return given.status_code == 403 and not self.asks_redis("keys", f"email:*{self.email}")

        self.insists(is_gone, destroy)

    def asks(self, path: str, body: dict, **headers: str) -> httpx.Response:
        """What a request gets; every answer is the contract's, if the worker lives to give it."""
        try:
            got = self.client.post(path, json=body, headers=headers)
        except httpx.TransportError:
            return httpx.Response(503)
        assert got.status_code in (200, 403, 503), got.text
        return got

    def sends(self, path: str, body: dict, **headers: str) -> bool:
        """Whether it was served."""
        return self.asks(path, body, **headers).status_code == 200

    def insists(self, done: Callable[[], bool], again: Callable[[], object] = lambda: time.sleep(0.05)) -> None:
        until = time.monotonic() + self.PATIENCE
        while not done():
            assert time.monotonic() < until, f"{self.email} is shut out for good"
            again()

    def link(self, kind: str, ask: Callable[[], object]) -> str:
        """The token of the newest mail; it is asked for anew when none comes, or one that says the address is taken."""
        until = time.monotonic() + 2
        while True:
            found = [token for to, token in links(self.server, kind) if to == self.email]
            if left := [token for token in found if token not in self.used]:
                self.used |= set(left)
                return left[-1]
            if time.monotonic() > until:
                if self.is_let_in():
                    return "none"
                ask()
                until = time.monotonic() + 2
            time.sleep(0.05)

    def is_let_in(self) -> bool:
        given = self.asks("/auth/login", {"email": self.email, "password": self.password})
        if given.status_code == 200:
            self.cookie, self.csrf = cookies_of(given)["kinds"], given.json()["csrf"]
        return given.status_code == 200

    def lets_a_minute_pass(self) -> None:
        """An address that a cut signup was taking is free again by itself; nobody wants to wait for it here."""
        for name in self.asks_redis("keys", f"email:*{self.email}"):
            if self.asks_redis("ttl", name) != ["-1"]:
                self.asks_redis("del", name)

    def erases_what_was_cut(self) -> None:
        with contextlib.suppress(AssertionError):  # the engine dies for it too; it comes again in a minute
            run_in_application(self.server, "server.app.identity.erasure.resume()")

    def asks_redis(self, *words: str) -> list[str]:
        """What redis says; nothing true while it is away."""
        got = subprocess.run([*engine_cli(self.server), *words], capture_output=True, text=True)
        return got.stdout.split() if got.returncode == 0 else ["away"]


class Postbox:
    """An SMTP server that takes everything."""

    def __init__(self) -> None:
        self.arrived: list[EmailMessage] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        self.arrived.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


def test_mail_is_down_for_a_while(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What was asked for meanwhile arrives, and its link works."""
    port, box, login = free_port(), Postbox(), {"email": "late@example.com", "password": PASSWORD}
    sender = {"host": "127.0.0.1", "port": port, "tls": "none", "sender": "Kinds <hello@kinds.example>"}
    settings = PLENTY | {"verify_email": True, "mail": sender}
    controller = Controller(box, "127.0.0.1", port)
    with serving(KINDS, tmp_path_factory.mktemp("late"), settings=settings) as server, Stranger(server) as client:
        assert client.post("/auth/signup", json=login).json() == {}
        server.wait_said("mail.unreachable")
        time.sleep(3)
        assert error(client.post("/auth/login", json=login)) == (403, "verify")
        controller.start()
        try:
            until = time.monotonic() + 20
            while not box.arrived:
                assert time.monotonic() < until, server.said()
                time.sleep(0.05)
        finally:
            controller.stop()
        token = token_in(box.arrived[0].get_body(("plain",)).get_content(), "verify")
        assert client.post("/auth/verifyEmail", json={"token": token, "password": PASSWORD}).json() == {}
        assert client.post("/auth/login", json=login).status_code == 200
        assert [mail["to"] for mail in box.arrived] == ["late@example.com"]
