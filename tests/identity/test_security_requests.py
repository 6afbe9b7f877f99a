"""Requests that send something else than what is expected, or say of themselves what is not so."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from tests.conftest import KINDS, PASSWORD, Server, User, mail_to, mails, serving, token_in
from tests.kit.accounts import NEW
from tests.kit.strangers import PLENTY, Stranger, error


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Addresses are not verified here, as by default in dev."""
    with serving(KINDS, tmp_path_factory.mktemp("security"), settings=PLENTY) as made:
        User(made, "admin@example.com").sign_up()
        yield made


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
