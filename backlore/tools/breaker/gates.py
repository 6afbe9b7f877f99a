"""What surrounds a payload: sessions and csrf tokens, methods and headers, the path and the query."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from backlore.tools.breaker.attacks import actor
from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.document import Operation, Parameter, flaw
from backlore.tools.breaker.faults import faults
from backlore.tools.breaker.judge import ANY, INVALID, Expected, Flaw, refused, valid
from backlore.tools.breaker.people import JSON, Person
from backlore.tools.breaker.values import FEW_TRAPS, TRAPS, edges, kind_of
from backlore.tools.breaker.wire import Got, Sent

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PROPFIND")
OVERRIDES = ("x-http-method-override", "x-method-override", "x-http-method")
TYPES = (
    "text/plain", "", "text/xml", "application/octet-stream", "application/json; charset=utf-16", "multipart/form-data",
    "application/x-www-form-urlencoded", "application/jsonx", "application/json, text/plain",
)  # fmt: skip
HEADERS: tuple[dict[str, str], ...] = (
    {"if-none-match": '"a", W/"b", *x'}, {"if-none-match": "\x85\xff"}, {"range": "bytes=5-1"}, {"range": "bytes=-0"},
    {"range": "bytes=0-0,2-3,999999999999999999999-"}, {"range": "lines=1-2"}, {"range": "bytes=99999999999-"},
    {"accept": "x/y"}, {"accept-encoding": "gzip;q=9,*"}, {"content-length": "0"}, {"expect": "200-ok"},
    {"x-long": "x" * 6000}, {"cookie": "a=b; " * 1000}, {"cookie": "\xff=\x80"}, {"x-forwarded-for": "1.2.3.4, \xff"},
    {"x-forwarded-host": "evil.example"}, {"origin": "null"}, {"accept-language": "x" * 3000}, {"te": "trailers"},
)  # fmt: skip
TRAVERSALS = (
    "../server.py", "..%2fserver.py", "%2e%2e/server.py", "%2e%2e%2fserver.py", "..%5cserver.py", "./../config.py",
    "a/../../server.py",
    "//etc/passwd", "..%2f..%2f..%2f..%2f..%2fetc%2fpasswd", "../secret.py", "..%2fsecret.py", "%00", "index.html%00",
    ".hidden",
    "/server.py",
    "..%252fserver.py", "%c0%ae%c0%ae/server.py", "....//server.py",
)  # fmt: skip
INSIDE = re.compile(rb"Backend\(CONFIG\)|root:[x*]:0|SECRET = |CONFIG = \{")


def stages(breaker: Breaker) -> None:
    """Sessions and csrf tokens: none, forged, ended, another user's, without rights; requests from other sites."""
    ann, bob = breaker.cast.people["ann1"], breaker.cast.people["bob2"]
    ended = breaker.cast.new("gone")
    breaker.cast.post("/auth/logout", {}, ended.address, ended)
    for operation in breaker.operations:
        if not operation.has_session:
            if operation.stage == "auth" and operation.changes:
                foreign = {"sec-fetch-site": "cross-site"}
                sent = breaker.compose(operation, None)
                sent = replace(sent, headers={**sent.headers, **foreign})
                breaker.attack(operation, sent, refused(403, "csrf"), "from another site")
            continue
        person = actor(breaker, operation)
        sent = breaker.compose(operation, person)
        name, _, value = sent.session.partition("=")
        forged = [f"{name}=x", f"{name}={value[:-1]}{'1' if value[-1:] != '1' else '2'}", f"{name}=x.{value}",
                  f"{name}={value.partition('.')[0]}", f"{name}={value.partition('.')[0]}."]  # fmt: skip
        tries = [("no cookie", replace(sent, session=""), refused(403, "nocookie"))]
        tries += [
            ("a forged cookie", replace(sent, session=each), refused(403, "tampered", "nocookie")) for each in forged
        ]
        tries.append(
            (
                "an ended session",
                replace(sent, session=ended.session, csrf=sent.csrf and ended.csrf),
                refused(403, "session"),
            )
        )
        if operation.changes:
            wrong = refused(403, "csrf")
            tries += [
                ("no csrf", replace(sent, csrf=""), wrong),
                ("another's csrf", replace(sent, csrf=ann.csrf if person is not ann else bob.csrf), wrong),
                ("an ended session's csrf", replace(sent, csrf=ended.csrf), wrong),
                ("an empty csrf", replace(sent, headers={**sent.headers, "x-csrf-token": ""}, csrf=""), wrong),
                ("csrf in the query", replace(sent, csrf="", path=f"{sent.path}?csrf={sent.csrf}"), wrong),
            ]
            if sent.headers == JSON:
                tries.append(
                    ("another's csrf in the body", replace(sent, csrf="", body=with_csrf(sent.body, ann.csrf)), wrong)
                )
            if person.csrf:
                other = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
                tries.append(("from another site", replace(sent, headers={**sent.headers, **other}), wrong))
        if operation.stage == "admin":
            as_bob = replace(sent, session=bob.session, csrf=bob.csrf if sent.csrf else "", who=bob.name)
            tries.append(("as no admin", as_bob, refused(403, "admin")))
        for label, each, expected in tries:
            breaker.attack(operation, each, expected, label)


def with_csrf(body: bytes | None, token: str) -> bytes:
    """A JSON body with a token in it."""
    known = json.loads(body or b"{}")
    return json.dumps({**known, "csrf": token}).encode()


def methods(breaker: Breaker) -> None:
    """Other methods, HEAD, OPTIONS, headers that ask for another method, content types, strange headers."""
    paths: dict[str, list[Operation]] = {}
    for operation in breaker.operations:
        paths.setdefault(operation.path, []).append(operation)
    for operations in paths.values():
        first = operations[0]
        person = actor(breaker, first)
        known = {each.method for each in operations} | {"OPTIONS"}
        known |= {"HEAD"} if "GET" in known else set()
        sent = breaker.compose(first, person)
        for method in METHODS:
            if method not in known:
                other = replace(
                    sent, method=method, csrf=person.csrf if person else "", body=sent.body or b"{}", headers=JSON
                )
                other = replace(other, body=None, headers={}) if method in ("GET", "HEAD") else other
                got = breaker.attack(
                    None, other, Expected(frozenset({405}), frozenset(), "method", "405"), "method", person
                )
                allow = {word.strip() for word in got.headers.get("allow", "").split(",")}
                if got.status == 405 and allow != known:
                    wrong = Flaw(
                        "allow", f"Allow says {', '.join(sorted(allow))}, the contract {', '.join(sorted(known))}."
                    )
                    breaker.keep(f"{method} {first.path}", wrong, "method", other, got)
        for operation in operations:
            if operation.method == "GET":
                way = reading
            elif operation.is_raw or not operation.changes:
                way = blind
            else:
                way = changing
            way(breaker, operation, actor(breaker, operation))


def reading(breaker: Breaker, operation: Operation, person: Person) -> None:
    """HEAD is GET without its body; OPTIONS; conditions; headers that ask for another method; strange headers."""
    sent = breaker.compose(operation, person)
    got = breaker.attack(operation, sent, ANY, "plain", person)
    head = breaker.attack(operation, replace(sent, method="HEAD"), ANY, "HEAD", person)
    for name in ("content-type", "etag", "content-length"):
        differs = got.status == 200 and got.status == head.status and got.headers.get(name) != head.headers.get(name)
        # a reply that has changed meanwhile may differ
        if differs and breaker.attack(operation, sent, ANY, "plain", person).headers.get("etag") == got.headers.get(
            "etag"
        ):
            why = f"HEAD has {name} {head.headers.get(name)}, GET {got.headers.get(name)}."
            breaker.keep(str(operation), Flaw("head", why), "HEAD", replace(sent, method="HEAD"), head)
    if tag := got.headers.get("etag"):
        again = replace(sent, headers={"if-none-match": tag})
        same = breaker.attack(operation, again, ANY, "If-None-Match", person)
        if same.headers.get("etag", tag) == tag and (same.status != 304 or same.raw):
            why = f"{same.status} with {len(same.raw)} bytes, expected 304 without a body."
            breaker.keep(str(operation), Flaw("etag", why), "If-None-Match", again, same)
    for name in OVERRIDES:
        asked = replace(sent, headers={name: "DELETE"}, csrf=person.csrf)
        other = breaker.attack(operation, asked, ANY, f"{name}: DELETE", person)
        if other.status != got.status:
            breaker.keep(str(operation), Flaw("method", f"{name} changes the method."), name, asked, other)
    strange_headers(breaker, operation, sent, person)


def strange_headers(breaker: Breaker, operation: Operation, sent: Sent, person: Person) -> None:
    """Headers that no client of ours sends. What the HTTP parser refuses is not judged as the route's reply."""
    for headers in HEADERS:
        strange = replace(sent, headers={**sent.headers, **headers})
        got = breaker.wire.send(strange, breaker.wire.new_address())
        label = f"header {next(iter(headers))}"
        breaker.requests[str(operation)] += 1
        breaker.log.append(f"{breaker.phase} {operation} {label}")
        if got.status not in (400, 408, 413, 431, 417) and "cookie" not in headers:
            for each in [*breaker.flaws(operation, strange, got), *breaker.leaks(strange, got, person)]:
                breaker.keep(str(operation), each, label, strange, got)
        elif got.status == 500:
            breaker.keep(str(operation), Flaw("crash", "500."), label, strange, got)


def changing(breaker: Breaker, operation: Operation, person: Person) -> None:
    """A JSON body that claims to be something else; headers that ask for another method; transfers that are cut."""
    sent = breaker.compose(operation, person)
    if operation.is_form:
        return
    for kind in TYPES:
        other = replace(sent, headers={"content-type": kind})
        refusal = Expected(frozenset({400, 415}), frozenset(), "accepted", "415 or 400: it is no JSON")
        breaker.attack(operation, other, refusal, f"content-type {kind!r}", person)
    for name in OVERRIDES:
        other = replace(sent, headers={**sent.headers, name: "GET"}, csrf="")
        if operation.has_session:
            breaker.attack(operation, other, refused(403, "csrf", "session", "nocookie"), f"{name}: GET", person)
    lines = "".join(f"{key}: {value}\r\n" for key, value in sent.lines().items())
    start = f"{sent.method} {sent.path} HTTP/1.1\r\nhost: {breaker.wire.host}\r\n{lines}"
    for rest in (
        'content-length: 5000\r\n\r\n{"a":',
        "transfer-encoding: chunked\r\n\r\n5\r\n{",
        "transfer-encoding: chunked\r\n\r\nzz\r\n",
    ):
        raw = breaker.wire.send_raw((start + rest).encode("latin-1"), 0.05)
        if b" 500 " in raw[:20]:
            breaker.keep(
                str(operation),
                Flaw("crash", "500 for a transfer that was cut."),
                "a cut transfer",
                sent,
                Got(500, {}, raw, 0),
            )


def blind(breaker: Breaker, operation: Operation, person: Person) -> None:
    """OPTIONS, and bodies that only the route can read: whatever is sent, the reply must be in the contract."""
    sent = breaker.compose(operation, person)
    strange_headers(breaker, operation, sent, person)
    for name in OVERRIDES:
        asked = replace(sent, headers={**sent.headers, name: "GET"})
        breaker.attack(operation, asked, ANY, f"{name}: GET", person)
    for kind in TYPES if operation.is_raw else ():
        for body in (b"", b"{}", b"\x00\xff\r\n" * 1000):
            other = replace(sent, headers={"content-type": kind}, body=body)
            breaker.attack(operation, other, ANY, f"{len(body)} bytes of {kind!r}", person)


def parameters(breaker: Breaker) -> None:
    """Parameters of the path and the query: at their bounds, beyond them, twice, unknown, badly escaped, too long."""
    tried: set[str] = set()
    for operation in breaker.operations:
        person = actor(breaker, operation)
        for parameter in operation.of("path"):
            # the same type has the same code behind it: its traps are tried on one route
            known = f"{parameter.name} {json.dumps(parameter.schema, sort_keys=True)}"
            traps = FEW_TRAPS if known in tried else TRAPS
            tried.add(known)
            for label, text, expected in wrong_parts(operation, parameter, traps):
                place = operation.path.replace(f"{{{parameter.name}}}", text)
                for name, value in breaker.path_values(operation, person).items():
                    place = place.replace(f"{{{name}}}", quote(str(value), safe=""))
                sent = replace(breaker.compose(operation, person), path=place)
                breaker.attack(operation, sent, expected, f"{parameter.name}: {label}", person)
        for parameter in operation.of("query"):
            for label, value in edges(parameter.schema, breaker.random):
                if value is not None:
                    sent = breaker.compose(operation, person, query={parameter.name: value})
                    if len(sent.path.partition("?")[2]) <= 2048:
                        breaker.attack(operation, sent, valid(operation), f"{parameter.name}: {label}", person)
            for label, value in wrong_queries(breaker, parameter):
                sent = breaker.compose(operation, person, query={parameter.name: value})
                if len(sent.path.partition("?")[2]) <= 2048:
                    breaker.attack(operation, sent, INVALID, f"{parameter.name}: {label}", person)
        if operation.method == "GET":
            plain = breaker.compose(operation, person)
            too_long = replace(plain, path=f"{plain.path}?a={'x' * 2047}")
            breaker.attack(operation, too_long, refused(414, "query", kind="accepted"), "a query of 2,049", person)
        if operation.of("query"):
            name = operation.of("query")[0].name
            queries = [f"{name}x=1", f"{name}=%ff", "=", "admin=true", "__proto__=1"]
            single = [each.name for each in operation.of("query") if kind_of(each.schema).get("type") != "array"]
            queries += [f"{each}=1&{each}=1" for each in single[:1]]  # a list may be given several times
            for query in queries:
                sent = replace(plain, path=f"{plain.path}?{query}")
                breaker.attack(operation, sent, INVALID, f"the query {query}", person)


def wrong_parts(
    operation: Operation, parameter: Parameter, traps: tuple[str, ...]
) -> Iterator[tuple[str, str, Expected]]:
    """Escaped texts for a path parameter, with the reply that each should get."""
    missing = frozenset({404})
    nowhere = Expected(missing, frozenset(), "accepted", "404: there is no such path")
    known = kind_of(parameter.schema)
    for trap in traps:
        is_number = known.get("type") in ("integer", "number")
        yield f"trap {trap!r}", quote(trap, safe=""), nowhere if is_number and not trap.isdecimal() and trap not in (
            "-1", "1e9") else ANY  # fmt: skip
    yield "no UTF-8", "%ff%fe", nowhere
    if known.get("type") == "integer":
        for value in (known.get("minimum", 0) - 1, known.get("maximum", 0) + 1, 10**400):
            if flaw(known, value):
                yield f"{str(value)[:20]}: out of bounds", str(value), nowhere
        for value in (known.get("minimum"), known.get("maximum")):
            if value is not None:
                yield f"{value}", str(value), valid(operation)


def wrong_queries(breaker: Breaker, parameter: Parameter) -> Iterator[tuple[str, Any]]:
    """Texts that a query parameter may not have."""
    known = kind_of(parameter.schema)
    for label, value in faults(parameter.schema, breaker.random):
        is_number = known.get("type") in ("integer", "number") and type(value) in (int, str) and str(value) != "1"
        if is_number or (known.get("type") == "string" and isinstance(value, str) and value):
            yield label, value


def static_files(breaker: Breaker) -> None:
    """No path leads out of a folder that is served."""
    for operation in breaker.operations:
        names = operation.of("path")
        if operation.method != "GET" or len(names) != 1 or operation.stage != "public":
            continue
        for trick in TRAVERSALS:
            sent = Sent("GET", operation.path.replace(f"{{{names[0].name}}}", trick))
            got = breaker.attack(operation, sent, ANY, f"out by {trick}")
            if got.status == 200 and INSIDE.search(got.raw):
                breaker.keep(str(operation), Flaw("traversal", f"{trick} leads out of the folder."), trick, sent, got)
