"""Header lines that come twice: a header with one value is refused, and a list means the same as in one line."""

import json
from dataclasses import replace

from backlore.tools.breaker.attacks import actor
from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.document import Operation
from backlore.tools.breaker.judge import ANY, Expected, Flaw
from backlore.tools.breaker.people import JSON, Person, login_of
from backlore.tools.breaker.wire import Got, Sent

REFUSED = Expected(
    frozenset({400, 403, 415}), frozenset(), "twice", "a refusal: of two different values neither counts"
)
FAR, NEAR = "203.0.113.9", "127.0.0.1"


def repeated(breaker: Breaker) -> None:
    """Content-Type, the csrf token and Sec-Fetch-Site, on every route; ETags; addresses of proxies."""
    for operation in breaker.operations:
        if operation.changes:
            single(breaker, operation, actor(breaker, operation))
        elif operation.method == "GET" and not operation.of("path"):
            tags(breaker, operation, actor(breaker, operation))
    if breaker.cast.can_sign_up:
        hops(breaker)


def single(breaker: Breaker, operation: Operation, person: Person) -> None:
    """Two lines where only one may be, with the right value first and last."""
    sent = breaker.compose(operation, person)
    pairs = []
    if sent.headers == JSON and not operation.is_raw:
        pairs.append(("content-type", JSON["content-type"], "text/plain"))
    if operation.has_session:
        pairs.append(("x-csrf-token", sent.csrf, "0" * 32))
    if operation.stage != "public":
        pairs.append(("sec-fetch-site", "same-origin", "cross-site"))
    for name, right, wrong in pairs:
        for first, second in ((right, wrong), (wrong, right)):
            twice = replace(sent, headers={**sent.headers, name: first}, more=((name, second),))
            breaker.attack(operation, twice, REFUSED, f"two {name} lines: {first}, {second}", person)


def tags(breaker: Breaker, operation: Operation, person: Person) -> None:
    """If-None-Match is a list: its lines are joined."""
    sent = breaker.compose(operation, person)
    tag = breaker.attack(operation, sent, ANY, "plain", person).headers.get("etag")
    for first, second in ((tag, '"other"'), ('"other"', tag)) if tag else ():
        asked = replace(
            sent, headers={**sent.headers, "if-none-match": f"{first}"}, more=(("if-none-match", f"{second}"),)
        )
        label = f"two if-none-match lines: {first}, {second}"
        got = breaker.attack(operation, asked, ANY, label, person)
        if got.status == 200 and got.headers.get("etag") == tag:  # otherwise it has changed meanwhile
            why = "200, though one of two If-None-Match lines names its ETag. Join the lines of a list in their order."
            breaker.keep(str(operation), Flaw("twice", why), label, asked, got)


def hops(breaker: Breaker) -> None:
    """X-Forwarded-For in two lines must lead to the same address as in one."""
    person = breaker.cast.new("hops")
    for first, second in ((FAR, NEAR), (NEAR, FAR)):
        joined, _, _ = log_in_through(breaker, person, f"{first}, {second}")
        split, sent, got = log_in_through(breaker, person, first, second)
        if joined != split:
            why = f"X-Forwarded-For in two lines, {first} and {second}, is the origin {split}; in one line {joined}. "
            why += "Join the lines of a list in their order."
            breaker.keep("POST /auth/login", Flaw("twice", why), "two x-forwarded-for lines", sent, got)


def log_in_through(breaker: Breaker, person: Person, *lines: str) -> tuple[str, Sent, Got]:
    """The origin that the list of sessions shows for a login with these X-Forwarded-For lines."""
    body = json.dumps(login_of(person)).encode()
    more = tuple(("x-forwarded-for", line) for line in lines)
    # always from one connection's address, so that only the header differs
    sent = Sent("POST", "/auth/login", body, JSON, more=more)
    got = breaker.wire.send(sent, person.address)
    session = breaker.cast.session_of(got)
    listed = breaker.wire.send(Sent("GET", "/auth/sessions", None, {}, person.name, session), person.address).body
    shown = (listed or {}).get("sessions", []) if isinstance(listed, dict) else []
    return next((str(each.get("origin")) for each in shown if each.get("current")), ""), sent, got
