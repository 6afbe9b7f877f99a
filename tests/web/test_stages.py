"""The stages and the contract: every status and word, each from outside."""

import json

import httpx
import pytest

from backlore.core.origins import read_network
from tests.conftest import PASSWORD, Server, User
from tests.kit.raw import ask


@pytest.fixture(scope="module")
def user(kinds: Server) -> User:
    return User(kinds, "user@example.com").sign_up()


@pytest.fixture(scope="module")
def boss(kinds: Server) -> User:
    return User(kinds, "admin@example.com").sign_up()


ROWS = [
    # method, path, what is sent, status, the body or a part of it
    ("GET", "/nowhere", {}, 404, {"error": "route"}),
    ("POST", "/whole/3", {}, 405, {"error": "method"}),
    ("GET", "/whole/3", {}, 200, {"id": 3}),
    ("GET", "/whole/x", {}, 404, {"error": "route"}),
    ("GET", "/whole/", {}, 404, {"error": "route"}),
    ("GET", "/whole/3/4", {}, 404, {"error": "route"}),
    ("GET", "/word/fixed", {}, 200, {"word": "fixed"}),  # the first in the table wins
    ("GET", "/word/%C3%A9%20%2F", {}, 200, {"word": "é /"}),
    ("GET", "/word/%ff", {}, 404, {"error": "route"}),
    ("GET", "/rest/a/b/c", {}, 200, {"rest": "a/b/c"}),
    ("GET", "/rest/", {}, 200, {"rest": ""}),
    ("GET", "/passes", {}, 200, {"passed": True}),
    ("GET", "/passes/none", {}, 404, {"error": "route"}),
    ("GET", "/passes/stage", {}, 403, {"error": "nocookie"}),  # on to a later stage, through its gates
    ("GET", "/nothing", {}, 500, {"error": "server"}),
    ("GET", "/fails", {}, 500, {"error": "server"}),
    ("GET", "/split-header", {}, 500, {"error": "server"}),
    ("GET", "/teapot", {}, 418, {"error": "teapot"}),
    ("GET", "/early/x", {}, 200, {"rest": "x"}),
    ("GET", "/early/x", {"headers": {"x-early": "1"}}, 200, {"avant": True}),
    ("GET", "/who", {}, 403, {"error": "nocookie"}),
    ("GET", "/who", {"headers": {"cookie": "kinds=abc.def"}}, 403, {"error": "tampered"}),
    ("GET", "/who", {"headers": {"cookie": "kinds="}}, 403, {"error": "tampered"}),
    ("GET", "/who", {"headers": {"cookie": b"kinds=\xff\xfe.\xff"}}, 403, {"error": "tampered"}),
    ("GET", "/who", {"headers": {"cookie": "otherkinds=abc.def; a=b"}}, 403, {"error": "nocookie"}),
    ("GET", "/admin/who", {}, 403, {"error": "nocookie"}),
    ("GET", "/query?size=20&tags=a&tags=b", {}, 200, {"size": 20, "tags": ["a", "b"]}),
    ("GET", "/query?size=0", {}, 400, {"error": "payload", "where": "size", "why": "Should be at least 1."}),
    ("GET", "/query?size=1&size=2", {}, 400, {"error": "payload", "where": "size"}),
    ("GET", "/query?other=1", {}, 400, {"error": "payload", "where": "other"}),
    ("GET", "/query?size=%ff", {}, 400, {"error": "json"}),
    ("GET", "/query?tags=" + "a" * 2100, {}, 414, {"error": "query"}),
    ("GET", "/health", {}, 200, {"ok": True}),
    ("POST", "/echo", {"content": b"{}"}, 415, {"error": "type"}),
    ("POST", "/echo", {"content": b"<a/>", "headers": {"content-type": "text/xml"}}, 415, {"error": "type"}),
    ("POST", "/echo", {"data": {"text": "a", "count": "3"}}, 200, {"text": "a", "count": 3}),
    ("POST", "/auth/login", {"json": {"email": "no@body.com", "password": PASSWORD}}, 403, {"error": "auth"}),
    ("POST", "/auth/signup", {"json": {"email": "nobody", "password": PASSWORD}}, 400, {"where": "email"}),
    ("POST", "/auth/signup", {"json": {"email": "a@b.c", "password": "short"}}, 400, {"where": "password"}),
    ("POST", "/auth/logout", {"json": {}}, 403, {"error": "nocookie"}),
]


@pytest.mark.parametrize(("method", "path", "sent", "status", "body"), ROWS, ids=lambda v: str(v)[:40])
def test_row(anyone: User, method: str, path: str, sent: dict, status: int, body: dict) -> None:
    got = anyone.request(method, path, **sent)
    assert got.status_code == status, got.text
    assert got.json().items() >= body.items()


def test_methods(anyone: User) -> None:
    refused = anyone.post("/whole/3")
    assert refused.headers["allow"] == "GET, HEAD, OPTIONS"
    asked = anyone.options("/who")
    assert (asked.status_code, asked.headers["allow"], asked.content) == (204, "GET, HEAD, OPTIONS, PUT", b"")
    assert anyone.options("/nowhere").status_code == 404
    head, get = anyone.head("/whole/3"), anyone.get("/whole/3")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "content-type"):
        assert head.headers[name] == get.headers[name]


def test_etag(anyone: User) -> None:
    first = anyone.get("/whole/3")
    for given in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
        again = anyone.get("/whole/3", headers={"if-none-match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert anyone.get("/whole/4", headers={"if-none-match": first.headers["etag"]}).status_code == 200
    assert "last-modified" not in first.headers


def test_a_reply_may_be_returned_many_times(anyone: User) -> None:
    seen = [len(anyone.get("/teapot").headers.raw) for _ in range(20)]
    assert len(set(seen)) == 1, seen


def test_security_headers(anyone: User) -> None:
    for path in ("/whole/3", "/nowhere", "/fails", "/files/folder/page.html"):
        headers = anyone.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
    assert "unsafe" not in anyone.get("/files/folder/page.html").headers["content-security-policy"]
    assert anyone.get("/nowhere").headers["cache-control"] == "no-store"


def test_session_life(kinds: Server) -> None:
    """Logged in, out; expired is told from forged, and the browser deletes what has expired."""
    user = User(kinds, "life@example.com").sign_up()
    cookie = user.cookies["kinds"]
    asked = user.get("/auth/csrf").json()
    assert asked["csrf"] == user.csrf
    assert asked["user"] | {"id": ""} == {"id": "", "email": "life@example.com", "admin": False}
    assert len(asked["user"]["id"]) == 16 and cookie.startswith(asked["user"]["id"][:3])
    out = user.post("/auth/logout", json={})
    assert (out.status_code, out.json()) == (200, {})
    assert "Max-Age=0" in out.headers["set-cookie"]
    old = httpx.get(f"{kinds.url}/who", headers={"cookie": f"kinds={cookie}"})
    assert (old.status_code, old.json()) == (403, {"error": "session"})
    assert "Max-Age=0" in old.headers["set-cookie"]
    session, _, signature = cookie.partition(".")
    for forged in (f"{session}x.{signature}", f"{session}.{signature[:-1]}_", session, f".{signature}"):
        got = httpx.get(f"{kinds.url}/who", headers={"cookie": f"kinds={forged}"})
        assert got.json() == {"error": "tampered"}
        assert "set-cookie" not in got.headers
    kinds.wait_said("session.tampered")
    assert cookie.partition(".")[0] not in kinds.said()


def test_cookie_attributes(kinds: Server) -> None:
    User(kinds, "attributes@example.com").sign_up()
    with User(kinds, "attributes@example.com") as again:
        given = again.post("/auth/login", json={"email": "Attributes@Example.com", "password": PASSWORD})
    attributes = given.headers["set-cookie"].split("; ")[1:]
    assert {"Path=/", "HttpOnly", "SameSite=Lax"} <= set(attributes) and "Secure" not in attributes
    assert "2069" in given.headers["set-cookie"]
    assert given.headers["cache-control"] == "no-store"


def test_signup_is_taken_once(kinds: Server) -> None:
    login = {"email": "taken@example.com", "password": PASSWORD}
    with User(kinds) as user:
        assert user.post("/auth/signup", json=login).status_code == 200
        again = user.post("/auth/signup", json=login | {"email": "TAKEN@example.com"})
        assert (again.status_code, again.json()) == (403, {"error": "email"})
        wrong = user.post("/auth/login", json=login | {"password": "wrong horse battery"})
        assert (wrong.status_code, wrong.json()) == (403, {"error": "auth"})


CSRF = [
    # headers, body, status, a part of the reply; TOKEN stands for the session's own
    ({}, {"text": "a"}, 403, {"error": "csrf"}),
    ({"x-csrf-token": "wrong"}, {"text": "a"}, 403, {"error": "csrf"}),
    ({"x-csrf-token": "TOKEN"}, {"text": "a"}, 200, {"text": "a"}),
    ({}, {"text": "a", "csrf": "TOKEN"}, 200, {"text": "a"}),
    ({"x-csrf-token": "TOKEN"}, {"text": "a", "csrf": "TOKEN"}, 200, {"text": "a"}),
    ({"x-csrf-token": "wrong"}, {"text": "a", "csrf": "TOKEN"}, 403, {"error": "csrf"}),
    ({}, {"text": "a", "csrf": "wrong"}, 403, {"error": "csrf"}),
    ({}, {"text": "a", "csrf": 3}, 403, {"error": "csrf"}),
    ({}, {"text": "", "csrf": "TOKEN"}, 400, {"where": "text"}),
    ({}, {"text": "", "csrf": "wrong"}, 403, {"error": "csrf"}),
    ({}, {"text": ""}, 403, {"error": "csrf"}),
]


@pytest.mark.parametrize(("headers", "body", "status", "part"), CSRF)
def test_csrf(user: User, headers: dict, body: dict, status: int, part: dict) -> None:
    def fill(values: dict) -> dict:
        return {name: user.csrf if value == "TOKEN" else value for name, value in values.items()}

    cookie = f"kinds={user.cookies['kinds']}"
    sent = {"headers": {**fill(headers), "cookie": cookie}, "json": fill(body)}
    got = httpx.post(f"{user.base_url}/echo/private", **sent)
    assert got.status_code == status, got.text
    assert got.json().items() >= part.items()
    assert "csrf" not in got.json()


def test_csrf_of_another_session(kinds: Server, user: User, boss: User) -> None:
    got = user.post("/echo/private", json={"text": "a"}, headers={"x-csrf-token": boss.csrf})
    assert (got.status_code, got.json()) == (403, {"error": "csrf"})
    form = user.post("/form/private", data={"title": "a", "csrf": user.csrf}, headers={"x-csrf-token": user.csrf})
    assert form.json()["title"] == "a"


def test_csrf_covers_every_method_that_changes(user: User) -> None:
    got = user.put("/who", headers={"x-csrf-token": ""})
    assert (got.status_code, got.json()) == (403, {"error": "csrf"})
    assert user.put("/who").json() == {"email": "user@example.com"}


def test_admin(user: User, boss: User) -> None:
    assert user.get("/admin/who").json() == {"error": "admin"}
    assert user.post("/admin/who", json={}).json() == {"error": "admin"}
    assert boss.get("/admin/who").json() == {"email": "admin@example.com"}
    assert boss.post("/admin/who", json={}, headers={"x-csrf-token": ""}).json() == {"error": "csrf"}


def test_mounted(anyone: User, user: User) -> None:
    assert anyone.get("/open/a/b").text == "/open /open/a/b None"
    assert anyone.get("/closed/a").json() == {"error": "nocookie"}
    assert user.get("/closed/a").text == "/closed /closed/a user@example.com"
    assert user.post("/closed/a").text == "/closed /closed/a user@example.com"
    assert user.post("/closed/a", headers={"x-csrf-token": ""}).json() == {"error": "csrf"}
    assert anyone.get("/open/fail").json() == {"error": "server"}
    framed = anyone.get("/open/framed")
    assert framed.text == "/open /open/framed None" and "transfer-encoding" not in framed.headers
    assert framed.headers.get_list("content-length") == [str(len(framed.text))]
    split = anyone.get("/open/split")
    assert split.json() == {"error": "server"} and "set-cookie" not in split.headers


ORIGINS = [
    # the lines of X-Forwarded-For, and the origin; 127.0.0.0/8 are proxies
    ((), "127.0.0.1"),
    (("203.0.113.9",), "203.0.113.9"),
    (("1.2.3.4, 203.0.113.9",), "203.0.113.9"),  # what stands before, the client made up
    (("203.0.113.9, 127.0.0.5",), "203.0.113.9"),  # a second proxy of ours
    (("127.0.0.1", "203.0.113.9"), "203.0.113.9"),  # lines are one list, in their order
    (("203.0.113.9", "127.0.0.1"), "203.0.113.9"),
    (("1.2.3.4", "203.0.113.9,127.0.0.1", "127.0.0.2"), "203.0.113.9"),
    (("127.0.0.9, 127.0.0.5",), "127.0.0.9"),  # nobody but proxies
    (("203.0.113.9:40001",), "203.0.113.9"),
    (("203.0.113.9, ::ffff:127.0.0.5",), "203.0.113.9"),
    (("203.0.113.9, [::ffff:127.0.0.5]:80",), "203.0.113.9"),
    (("::ffff:203.0.113.9",), "203.0.113.9"),
    (("::FFFF:cb00:7109",), "203.0.113.9"),
    (("203.0.113.9,",), "203.0.113.9"),
    (("203.0.113.9 ,, , \t,",), "203.0.113.9"),
    (("",), "127.0.0.1"),
    ((",",), "127.0.0.1"),
    (("2001:DB8::0:1",), "2001:db8::1"),
    (("[2001:db8::1]:40001",), "2001:db8::1"),
    (('"[2001:db8::1]:40001"',), "2001:db8::1"),
    (("fe80::1%eth0",), "fe80::1"),
    (("203.0.113.9, unknown",), "unknown"),  # a proxy of ours does not know its client
    (("203.0.113.9 127.0.0.1",), "unknown"),
    (("203.0.113.009",), "unknown"),
    (("203.0.113.9:x",), "unknown"),
    (("203.0.113.9" + " " * 200 + "x",), "unknown"),
    (("x" * 5000,), "unknown"),
    (("\u00ff",), "unknown"),
]


@pytest.mark.parametrize(("lines", "origin"), ORIGINS)
def test_origin(anyone: User, lines: tuple[str, ...], origin: str) -> None:
    headers = [("x-forwarded-for", line.encode("latin-1")) for line in lines]
    assert anyone.get("/origin", headers=headers).json() == {"origin": origin}


def test_networks_of_proxies() -> None:
    written = ("10.0.0.1", "10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "2001:db8::/32")
    read = ["10.0.0.1/32", "10.0.0.0/8", "10.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"]
    assert [str(read_network(each)) for each in written] == read


REPEATED = [
    # method, path, the header with its two values; refused, or what is answered
    *(
        ("POST", "/echo", name, ("a", "a"), None)
        for name in (
            *("content-type", "origin", "x-csrf-token", "authorization", "range", "if-range", "if-modified-since"),
            *("sec-fetch-site", "x-http-method-override", "content-disposition", "tus-resumable", "upload-offset"),
            *("upload-length", "upload-metadata", "upload-checksum", "user-agent", "last-event-id", "X-CSRF-Token"),
        )
    ),
    ("GET", "/nowhere", "range", ("bytes=0-1", "bytes=2-3"), None),
    ("GET", "/whole/3", "accept", ("a/b", "c/d"), 200),
    ("GET", "/whole/3", "via", ("1.1 a", "1.1 b"), 200),
    ("GET", "/whole/3", "x-of-a-stranger", ("a", "a"), 200),
    ("GET", "/whole/3", "if-none-match", ("ETAG", '"other"'), 304),
    ("GET", "/whole/3", "if-none-match", ('"other"', "ETAG"), 304),
    ("GET", "/files/hello.txt", "if-match", ("ETAG", '"other"'), 200),
    ("GET", "/files/hello.txt", "if-match", ('"other"', "ETAG"), 200),
]


@pytest.mark.parametrize(("method", "path", "name", "values", "status"), REPEATED)
def test_header_lines_of_one_name(
    kinds: Server, anyone: User, method: str, path: str, name: str, values: tuple[str, str], status: int | None
) -> None:
    etag = anyone.get(path).headers.get("etag", "")
    lines = "".join(f"{name}: {value.replace('ETAG', etag)}\r\n" for value in values)
    got, body = ask(kinds, f"{method} {path} HTTP/1.1\r\nconnection: close\r\n{lines}host: x\r\n\r\n".encode())
    if status is None:
        refused = {"error": "header", "where": name.lower(), "why": "Is given more than once."}
        assert (got, json.loads(body)) == (400, refused)
    else:
        assert got == status


@pytest.mark.parametrize("path", ["/whole/3", "/nowhere"])
@pytest.mark.parametrize("other", ["a", "b"])
def test_two_hosts(kinds: Server, path: str, other: str) -> None:
    """Refused by the door (RFC 9112, §3.2), before any stage."""
    lines = f"GET {path} HTTP/1.1\r\nconnection: close\r\nhost: a\r\nhost: {other}\r\n\r\n"
    got, body = ask(kinds, lines.encode())
    assert (got, json.loads(body)) == (400, {"error": "http"})


def test_two_lines_of_cookies(user: User, kinds: Server) -> None:
    pair = "; ".join(f"{name}={value}" for name, value in user.cookies.items())
    for lines in (("a=b", pair), (pair, "a=b")):
        assert httpx.get(f"{kinds.url}/who", headers=[("cookie", line) for line in lines]).status_code == 200


def test_origin_without_proxy(shoebox: Server) -> None:
    """Who is no configured proxy is not believed. Seen in what notify says."""
    httpx.get(f"{shoebox.url}/nowhere-at-all", headers={"x-forwarded-for": "203.0.113.77"})
    said = shoebox.wait_said("/nowhere-at-all")
    assert "origin=127.0.0.1" in said and "203.0.113.77" not in said


def test_errors_tell_nothing(kinds: Server, anyone: User) -> None:
    got = anyone.get("/fails")
    assert got.json() == {"error": "server"}
    said = kinds.wait_said("the secret of the universe")
    assert "Traceback" in said and "handler.failed" in said
    assert anyone.get("/nothing").json() == {"error": "server"}
    kinds.wait_said("handler.noreply")


def test_openapi(anyone: User) -> None:
    from openapi_spec_validator import validate

    document = anyone.get("/openapi.json").json()
    validate(document)
    assert document["openapi"] == "3.1.0"
    echo = document["paths"]["/echo"]["post"]
    assert echo["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Everything"}
    shape = document["components"]["schemas"]["Everything"]
    assert shape["additionalProperties"] is False and shape["required"] == ["text"]
    assert document["paths"]["/whole/{id}"]["get"]["parameters"][0]["schema"] == {"type": "integer"}
    assert document["paths"]["/who"]["get"]["security"] == [{"session": []}]
    assert "multipart/form-data" in document["paths"]["/form"]["post"]["requestBody"]["content"]
    assert not any(path.startswith("/open/") for path in document["paths"])
    json.dumps(document)
