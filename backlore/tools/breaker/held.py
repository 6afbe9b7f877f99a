"""Requests that are held open while their session ends. All but the last byte of the body is sent, so that the gates
let the request in. Then the session ends, and only then is the last byte sent. The request must be refused, and must
have changed nothing.
"""

import http.client
import select
import socket
import time
from dataclasses import dataclass, replace

from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.crowds import observe
from backlore.tools.breaker.document import Operation, owners
from backlore.tools.breaker.endings import ENDINGS, Ending, demote, promote
from backlore.tools.breaker.judge import ANY, Flaw
from backlore.tools.breaker.people import Person
from backlore.tools.breaker.wire import Got, Sent, begin, finish, send_on

GATES = 1.5  # seconds for the gates to let a request in; most say so by "100 Continue"
# Error words of the stages and of decoding: with one of these, the handler has not run.
BEFORE = {
    "nocookie",
    "session",
    "tampered",
    "csrf",
    "admin",
    "header",
    "json",
    "payload",
    "size",
    "type",
    "query",
    "route",
}
BEFORE |= {"timeout", "rate", "unavailable", "server"}
# these end the session themselves
LAST = ("/auth/logout", "/auth/destroy", "/auth/sessions/end", "/auth/changePassword")
TO_DO = "Look again whether the session holds once the body is there, and let what changes something depend on it."


@dataclass
class Held:
    """A request without its last byte."""

    operation: Operation
    sent: Sent
    connection: http.client.HTTPConnection


def held(breaker: Breaker) -> None:
    """Each ending, while requests to all routes are held open."""
    for ending in ENDINGS:
        if breaker.cast.can_sign_up:
            over(breaker, ending)
    person = breaker.cast.new("demoted")
    if promote(breaker, person) and breaker.cast.log_in(person):
        ending = Ending("POST /admin/users/{id}/admin", "after the admin was demoted", demote)
        over(breaker, ending, person, "admin")


def over(breaker: Breaker, ending: Ending, person: Person | None = None, stage: str = "private") -> None:
    """Hold a person's requests open during one ending."""
    person = person or breaker.cast.new("holds")
    for maker in owners(breaker.operations):
        breaker.make(maker, person, breaker.name_of(maker))
    before = observe(breaker, person)
    waiting = hold(breaker, person, stage)
    try:
        if not ending.act(breaker, person):
            return
        done = [(each, release(each)) for each in waiting]
    finally:
        for each in waiting:
            each.connection.close()
    for each, got in done:
        name = str(each.operation)
        breaker.requests[name] += 1
        breaker.log.append(f"{breaker.phase} {name} {ending.when}")
        if got.status and (got.status < 400 or got.error not in BEFORE | {""}):
            why = f"A request that was held open does what it asks for {ending.when}: {got.status} {got.error}".rstrip()
            breaker.keep(name, Flaw("held", f"{why}. {TO_DO}"), "the last byte held back", each.sent, got)
        for flaw in (
            breaker.judge.examine(each.operation, each.sent, replace(got, seconds=0), ANY) if got.status else ()
        ):
            breaker.keep(name, flaw, "the last byte held back", each.sent, got)
    if breaker.cast.log_in(person) and observe(breaker, person) != before:
        why = f"A request that was held open has changed something {ending.when}, though all were refused. {TO_DO}"
        if not any(kind == "held" for _, kind in breaker.findings):
            breaker.keep(ending.route, Flaw("held", why), "the last byte held back", done[0][0].sent, done[0][1])


def hold(breaker: Breaker, person: Person, stage: str) -> list[Held]:
    """Requests to all routes of a stage that have been let in and are not answered yet."""
    found = []
    operations = [each for each in breaker.operations if each.changes and each.stage == stage]
    for operation in sorted(operations, key=lambda each: each.path in LAST):
        breaker.wire.before_sending()
        sent = breaker.compose(operation, person)
        sent = replace(sent, body=sent.body or b"{}", headers={**sent.headers, "expect": "100-continue"})
        connection = breaker.wire.open(breaker.wire.new_address())
        begin(connection, sent, held=1)
        found.append(Held(operation, sent, connection))
    until = time.monotonic() + GATES
    new = [each.connection.sock for each in found]
    while new and time.monotonic() < until:
        ready, _, _ = select.select(new, [], [], max(0.0, until - time.monotonic()))
        new = [each for each in new if each not in ready]
    return [each for each in found if not is_answered(each.connection.sock)]


def is_answered(link: socket.socket) -> bool:
    """Whether more than "100 Continue" has come."""
    if not select.select([link], [], [], 0)[0]:
        return False
    start = link.recv(2000, socket.MSG_PEEK)
    return not start.startswith(b"HTTP/1.1 100") or start.count(b"HTTP/1.1 ") > 1


def release(each: Held) -> Got:
    """Send the last byte. Returns the reply."""
    send_on(each.connection, (each.sent.body or b"")[-1:])
    return finish(each.connection, time.monotonic())
