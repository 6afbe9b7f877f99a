"""Long replies and long bodies whose session ends: both must end within some seconds.

A reply is long if it is not over after a moment, or if it is a large file whose reader is slow. A body is long if it
comes piece by piece.
"""

import contextlib
import http.client
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.document import Operation, owners
from backlore.tools.breaker.endings import ENDINGS, Ending
from backlore.tools.breaker.forms import to_form
from backlore.tools.breaker.judge import Flaw
from backlore.tools.breaker.people import Person
from backlore.tools.breaker.wire import Got, Sent, begin, send_on

MOMENT = 1.0  # seconds after which a usual reply is over
WITHIN = 15.0  # seconds in which a long reply or body must end
SLOW = 9.0  # seconds of these in which a reader takes little; after them it takes all that was sent meanwhile
LARGE = 12 << 20  # bytes: more than fits into the buffers between a server and a reader that does not read
ENDED = ("POST /auth/logout", "POST /auth/reset")
STEP = 0.25  # seconds between two pieces of a body
TO_DO = "Whatever takes long looks again every few seconds whether its session holds."


@dataclass
class Long:
    """A reply or a body that has begun and is not over."""

    operation: Operation
    sent: Sent
    connection: http.client.HTTPConnection
    ending: Ending
    is_body: bool = False
    received: int = 0  # bytes of a reply
    is_over: bool = False


def streams(breaker: Breaker) -> None:
    """Replies and bodies that are in flight while a logout or a reset ends their session."""
    begun: list[Long] = []
    try:
        for ending in ENDINGS:
            if ending.route in ENDED and breaker.cast.can_sign_up:
                person = breaker.cast.new("streams")
                mine = [*replies(breaker, person, ending), *bodies(breaker, person, ending)]
                begun += mine if mine and ending.act(breaker, person) else []
        wait(breaker, begun)
        for each in begun:
            breaker.requests[str(each.operation)] += 1
            breaker.log.append(f"{breaker.phase} {each.operation} {each.ending.when}")
            if not each.is_over or each.received > LARGE:
                what = "A body is still taken" if each.is_body else "A reply goes on"
                why = f"{what} for {WITHIN:.0f} s, or to its end, {each.ending.when}. {TO_DO}"
                breaker.keep(str(each.operation), Flaw("held", why), "the session ends meanwhile", each.sent, STILL)
    finally:
        for each in begun:
            each.connection.close()


STILL = Got(0, {}, b"", WITHIN, "not over")


def replies(breaker: Breaker, person: Person, ending: Ending) -> list[Long]:
    """Requests for everything that is read; those that are returned have no complete reply after a moment."""
    make_large(breaker, person)
    found = []
    for operation in breaker.operations:
        is_long = operation.changes and 200 in operation.replies and is_foreign(operation.replies[200].media)
        if operation.stage == "private" and (operation.method == "GET" or is_long):
            sent = breaker.compose(operation, person, breaker.referring(operation, person))
            connection = open_narrow(breaker)
            with contextlib.suppress(OSError, http.client.HTTPException):
                begin(connection, sent)
                connection.sock.setblocking(False)
                found.append(Long(operation, sent, connection, ending))
    time.sleep(MOMENT)
    return [each for each in found if goes_on(each.connection)]


def is_foreign(media: str) -> bool:
    """Whether a reply is not JSON, so that it may be long."""
    return media not in ("", "application/json")


def make_large(breaker: Breaker, person: Person) -> None:
    """Store a large text where files are taken, and make what other routes make."""
    for maker in owners(breaker.operations):
        name = breaker.name_of(maker)
        breaker.make(maker, person, name)
        if maker.is_form:
            payload = breaker.payload(maker, person)
            body, headers = to_form(payload, maker, b"A line of text, and the next one.\n" * (LARGE // 34))
            breaker.make(
                maker,
                person,
                name,
                payload,
                replace(breaker.compose(maker, person, payload), body=body, headers=headers),
            )


def open_narrow(breaker: Breaker) -> http.client.HTTPConnection:
    """A connection whose reader has a small buffer."""
    connection = breaker.wire.open(breaker.wire.new_address(), WITHIN)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
    return connection


def goes_on(connection: http.client.HTTPConnection) -> bool:
    """Whether a reply has begun and is not complete."""
    try:
        start = connection.sock.recv(65536, socket.MSG_PEEK)
    except OSError:
        return False
    head, _, rest = start.partition(b"\r\n\r\n")
    lines = {line.partition(b":")[0].strip().lower(): line.partition(b":")[2].strip() for line in head.split(b"\r\n")}
    if not start.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        return False
    length = lines.get(b"content-length", b"")
    return len(rest) < int(length) if length.isdigit() else not rest.endswith(b"0\r\n\r\n")


def bodies(breaker: Breaker, person: Person, ending: Ending) -> Iterator[Long]:
    """Bodies of which most is still to come."""
    for operation in breaker.operations:
        if operation.stage == "private" and (operation.is_form or operation.is_raw):
            sent = breaker.compose(operation, person)
            sent = replace(sent, headers={**sent.headers, "content-length": str(LARGE)})
            connection = breaker.wire.open(breaker.wire.new_address(), WITHIN)
            with contextlib.suppress(OSError, http.client.HTTPException):
                begin(connection, sent, held=40)  # not the end of a form
                if not select.select([connection.sock], [], [], STEP)[0]:
                    yield Long(operation, sent, connection, ending, is_body=True)


def wait(breaker: Breaker, begun: list[Long]) -> None:
    """Wait until all are over, or the time is. Readers take a little at first and all at last; senders send a bit."""
    since = time.monotonic()
    while time.monotonic() < since + WITHIN and not all(each.is_over for each in begun):
        breaker.wire.before_sending()
        for each in begun:
            if not each.is_over:
                is_slow = time.monotonic() < since + SLOW
                each.is_over = answers(each) if each.is_body else ends(each, 8 << 10 if is_slow else LARGE)
        time.sleep(STEP)


def answers(each: Long) -> bool:
    """Whether the server has answered, or closed, while a body is being sent."""
    if select.select([each.connection.sock], [], [], 0)[0]:
        return True
    try:
        send_on(each.connection, b"x")
    except OSError:
        return True
    return False


def ends(each: Long, most: int) -> bool:
    """Whether the server has closed, or marked the end, within the next bytes, `most` of them at most."""
    try:
        while most > 0:
            got = each.connection.sock.recv(min(most, 1 << 16))
            each.received += len(got)
            most -= len(got)
            if not got or got.endswith(b"0\r\n\r\n"):
                return True
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False
