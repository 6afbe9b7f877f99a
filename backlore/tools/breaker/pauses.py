"""Bodies that block a worker's event loop: while one is read and decoded, all other clients of this worker wait.

Meanwhile trivial requests are timed on other connections, some of which the same worker serves. What counts is how much
longer they take than without the body, three times in a row, after correction for the load of the machine.
"""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

from backlore.tools.breaker.attacks import actor
from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.document import Operation, Schema
from backlore.tools.breaker.judge import ANY, Flaw
from backlore.tools.breaker.people import JSON
from backlore.tools.breaker.strain import strain
from backlore.tools.breaker.values import places, put
from backlore.tools.breaker.wire import Sent, exchange

LONGEST = 0.2  # seconds: the longest that other clients may wait
TIMES = 4  # and this many times longer than without the body
ROUNDS = 3
TRIES = 3
RECOVERY = 10.0  # seconds
WATCHERS = 6  # connections
# seconds: a connection that gave up would be opened anew at another worker, and see nothing of this one
PATIENCE = 30.0
SIZE = 1_000_000  # bytes: nearly the default limit of a body
FORM = {"content-type": "application/x-www-form-urlencoded"}
TO_DO = "Bound it before it is decoded, or decode it off the loop."


@dataclass
class Watchers:
    """Connections that send trivial requests."""

    connections: list[http.client.HTTPConnection]
    trivial: Sent

    def longest(self, is_over: Callable[[], bool]) -> float:
        """The longest that one of them waits before `is_over`, in seconds."""
        found = 0.0
        while True:
            for each in self.connections:
                got = exchange(each, self.trivial)
                found = max(found, got.seconds)
                if not got.status:
                    each.close()  # it reconnects by itself
            if is_over():
                return found


def pauses(breaker: Breaker) -> None:
    """Large bodies of every shape that a route's type leaves open."""
    trivial = next((each for each in breaker.operations if each.path == "/health"), None)
    public = [
        each for each in breaker.operations if each.method == "GET" and each.stage == "public" and not each.of("path")
    ]
    if not (trivial or public):
        return
    asked = Sent("GET", (trivial or public[0]).path)
    watch = Watchers([breaker.wire.open(breaker.wire.new_address(), PATIENCE) for _ in range(WATCHERS)], asked)
    try:
        for operation in breaker.operations:
            for label, sent in bodies(breaker, operation) if operation.changes and not operation.is_raw else ():
                if (str(operation), "pause") not in breaker.findings:
                    look(breaker, watch, operation, label, sent)
    finally:
        for each in watch.connections:
            each.close()


def look(breaker: Breaker, watch: Watchers, operation: Operation, label: str, sent: Sent) -> None:
    """Send a body, and send it again if other clients waited long."""
    breaker.requests[str(operation)] += 1
    breaker.log.append(f"{breaker.phase} {operation} {label}")
    breaker.on_progress(str(operation))
    waited = during(breaker, watch, sent)
    if waited < LONGEST:
        return
    alone, with_it, on_idle = [], [], []
    for _ in range(ROUNDS):
        recover(breaker, watch)
        busy = strain()
        until = time.monotonic() + waited
        alone.append(watch.longest(lambda until=until: time.monotonic() > until))  # type: ignore[misc]
        with_it.append(during(breaker, watch, sent))
        on_idle.append(with_it[-1] / max(busy, strain()))
    # the last two are both measured on the busy machine
    if min(on_idle) > LONGEST and min(with_it) > TIMES * max(alone):
        why = f"Everybody else waits {min(with_it):.1f} s while {label} is read, {max(alone):.3f} s without. {TO_DO}"
        got = breaker.wire.send(sent, breaker.wire.new_address())
        breaker.keep(str(operation), Flaw("pause", why), label, sent, got, ANY)


def recover(breaker: Breaker, watch: Watchers) -> None:
    """Wait until the last body delays no one. If that takes long, restart the server."""
    until = time.monotonic() + RECOVERY
    while watch.longest(lambda: True) > LONGEST and time.monotonic() < until:
        pass
    if time.monotonic() > until:
        breaker.heal()


def during(breaker: Breaker, watch: Watchers, sent: Sent) -> float:
    """The longest that other clients wait while a request is answered. If the answer takes long and no one waits, a
    worker may have served it that serves none of the watchers. Its connection becomes one of theirs, and the request is
    sent again.
    """
    found = 0.0
    for _ in range(TRIES):
        connection = breaker.wire.open(breaker.wire.new_address(), PATIENCE)
        breaker.wire.before_sending()
        with contextlib.suppress(OSError):  # the error shows when the request is sent
            # while all workers are idle: later, busy ones would leave it to a worker that does nothing
            connection.connect()
        began = time.monotonic()
        thread = threading.Thread(target=exchange, args=(connection, sent), daemon=True)
        thread.start()
        found = watch.longest(lambda thread=thread: not thread.is_alive())  # type: ignore[misc]
        if found >= LONGEST or time.monotonic() - began < LONGEST:
            connection.close()
            break
        watch.connections.append(connection)
    del watch.connections[: -4 * WATCHERS]
    return found


def bodies(breaker: Breaker, operation: Operation) -> Iterator[tuple[str, Sent]]:
    """Bodies as large as allowed: open parts of the type filled; lists; escapes; a form with many fields."""
    person = actor(breaker, operation)
    whole = breaker.payload(operation, person)
    plain = breaker.compose(operation, person, whole)
    if operation.is_form or not isinstance(whole, dict):
        return
    for path, schema in places((operation.body or {}).get("properties", {})):
        for label, text in fillings(schema):
            raw = json.dumps(put(whole, path, "@here")).replace('"@here"', text)
            yield f"{'.'.join(path)}: {label}", replace(plain, body=raw.encode(), headers=JSON)
    fields = "&".join(f"{quote(key)}={quote(str(each))}" for key, each in whole.items())
    yield "a form of many fields", replace(plain, body=(fields + "&a=1" * (SIZE // 4))[:SIZE].encode(), headers=FORM)


def fillings(schema: Schema) -> Iterator[tuple[str, str]]:
    """Large values, as JSON, that a decoder must read to the end. Smaller ones too: many items may be too many."""
    kind = schema.get("type")
    is_any = kind is None and not {"enum", "const"} & set(schema)
    is_open = is_any or (kind == "object" and schema.get("additionalProperties", True) is not False)
    for size in (SIZE, SIZE // 5):
        if is_any:
            yield f"{size // 3:,} times {{}}", "[" + ",".join(["{}"] * (size // 3)) + "]"
        if is_open:
            keys = range(size // 16)
            yield f"{len(keys):,} keys", "{" + ",".join(f'"k{number}":{number}' for number in keys) + "}"
            yield f"{size // 3:,} times {{}} within", '{"a":[' + ",".join(["{}"] * (size // 3)) + "]}"
    if kind == "array":
        yield "a long list", "[" + ",".join(['"a"'] * (SIZE // 4)) + "]"
    if kind == "string" and "enum" not in schema:
        yield "escapes", '"' + "\\u0061" * (SIZE // 6) + '"'
