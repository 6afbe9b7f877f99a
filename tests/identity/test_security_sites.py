"""What another site makes a browser send, which cookie counts, and what a browser is told to keep to."""

import json
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from tests.conftest import KINDS, PASSWORD, Server, User, serving
from tests.kit.accounts import NEW
from tests.kit.strangers import PLENTY, Stranger, cookies_of, error, join


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Addresses are not verified here, as by default in dev."""
    with serving(KINDS, tmp_path_factory.mktemp("security"), settings=PLENTY) as made:
        User(made, "admin@example.com").sign_up()
        yield made


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
