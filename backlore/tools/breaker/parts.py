"""Forms where they don't belong, and file inputs with nothing chosen.

Where a type has no file, a form has the same limit as JSON, and a file part is not one of the type's fields.
"""

import http.client
import select
import time
from dataclasses import replace

from backlore.tools.breaker.attacks import actor
from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.document import Operation
from backlore.tools.breaker.judge import ANY, Expected, Flaw
from backlore.tools.breaker.people import JSON, Person
from backlore.tools.breaker.values import kind_of
from backlore.tools.breaker.wire import Got, Sent, begin, finish, send_on

BOUNDARY = "backlore-breaker"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
DECLARED = 64 << 20  # bytes
SENT = 6 << 20  # bytes of these that are sent
PATIENCE = 2.0  # seconds in which a refusal must come,
AGAIN = 15.0  # and the seconds of the second try, if it did not
NO_FILE = Expected(frozenset({400, 413, 415}), frozenset(), "accepted", "400, 413 or 415: its type has no file")
NOTHING_CHOSEN = Expected(frozenset({400}), frozenset(), "accepted", "400: nothing was chosen, so the file is missing")
TO_DO = "Bound what comes where no file can be by what JSON may have, and refuse before it is written."


def parts(breaker: Breaker) -> None:
    """Every route that takes a body."""
    for operation in breaker.operations:
        if not operation.changes or operation.is_raw:
            continue
        person = actor(breaker, operation)
        if operation.is_form:
            nothing_chosen(breaker, operation, person)
        else:
            small_file(breaker, operation, person)
            large_file(breaker, operation, person)


def part_of(name: str, filename: str | None, content: bytes) -> bytes:
    """One part of a form."""
    file = "" if filename is None else f'; filename="{filename}"\r\ncontent-type: application/octet-stream'
    return f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def files_of(operation: Operation) -> list[str]:
    """The fields that are files."""
    shapes = (operation.body or {}).get("properties", {})
    return [key for key, each in shapes.items() if kind_of(each).get("format") == "binary"]


def nothing_chosen(breaker: Breaker, operation: Operation, person: Person) -> None:
    """For a file input with nothing chosen, a browser sends a part that is no file, so a required file is missing."""
    payload = breaker.payload(operation, person)
    for name in files_of(operation):
        if name in (operation.body or {}).get("required", ()):
            body = b"".join([part_of(name, "", b""), *texts(operation, payload)]) + END
            sent = replace(breaker.compose(operation, person), body=body, headers=FORM)
            breaker.attack(operation, sent, NOTHING_CHOSEN, f"{name}: no file chosen", person)


def texts(operation: Operation, payload: dict[str, object]) -> list[bytes]:
    """The text fields of a payload, without files, as parts."""
    mine = {key: each for key, each in payload.items() if key not in files_of(operation) and isinstance(each, str)}
    return [part_of(key, None, each.encode()) for key, each in mine.items()]


def small_file(breaker: Breaker, operation: Operation, person: Person) -> None:
    """A file as a field of the type, and as an extra one."""
    payload = breaker.payload(operation, person)
    known = [key for key, each in payload.items() if isinstance(each, str)] if isinstance(payload, dict) else []
    for name in (*known[:1], "file"):
        rest = [part for key, part in zip(known, texts(operation, payload), strict=True) if key != name]
        body = b"".join([*rest, part_of(name, "a.txt", b"x")]) + END
        sent = replace(breaker.compose(operation, person), body=body, headers=FORM)
        breaker.attack(operation, sent, NO_FILE, f"{name}: a file", person)


def large_file(breaker: Breaker, operation: Operation, person: Person) -> None:
    """The first megabytes of a large file must be refused, if JSON of this length is."""
    plain = breaker.compose(operation, person)
    as_json = begun(breaker, replace(plain, body=b'{"a":"' + b"x" * SENT, headers=JSON))
    if as_json is None or as_json.status == 0:
        return  # the limit of JSON is higher here
    sent = replace(plain, body=part_of("file", "a.txt", b"x" * SENT), headers=FORM)
    got = begun(breaker, sent) or begun(breaker, sent, AGAIN)
    breaker.requests[str(operation)] += 2
    breaker.log.append(f"{breaker.phase} {operation} a large file")
    if got is None:
        why = f"{SENT >> 20} MiB of a file were taken where its type has no file, and more was waited for. {TO_DO}"
        breaker.keep(str(operation), Flaw("boundless", why), "a large file", sent, Got(0, {}, b"", AGAIN, "time"))
    elif got.status:
        for flaw in breaker.judge.examine(operation, sent, replace(got, seconds=0), ANY):
            breaker.keep(str(operation), flaw, "a large file", sent, got)


def begun(breaker: Breaker, sent: Sent, patience: float = PATIENCE) -> Got | None:
    """The reply that comes before the whole body has been sent; None without one."""
    breaker.wire.before_sending()
    since = time.monotonic()
    connection = breaker.wire.open(breaker.wire.new_address())
    try:
        head = replace(sent, body=None, headers={**sent.headers, "content-length": str(DECLARED)})
        begin(connection, head)
        body = memoryview(sent.body or b"")
        for start in range(0, len(body), 1 << 18):
            if select.select([connection.sock], [], [], 0)[0]:
                break
            send_on(connection, bytes(body[start : start + (1 << 18)]))
        if not select.select([connection.sock], [], [], patience)[0]:
            return None
        return finish(connection, since)
    except (OSError, http.client.HTTPException):
        return Got(0, {}, b"", time.monotonic() - since, "broken")
    finally:
        connection.close()
